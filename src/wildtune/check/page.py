"""The page of `wildtune check`: every finding with its photos side by side, and a decision on each, in one HTML file.

Decisions are made in the page itself, which downloads them as the CSV file that `photos.corrections` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wildtune import files, wording
from wildtune.check.label_suspects import LabelRanking, save_ranking
from wildtune.pages import create_environment, data_uri
from wildtune.photos.audit import Finding, Findings, save_findings, sets_aside
from wildtune.photos.catalogue import Photo
from wildtune.photos.decode import DecodeError, create_thumbnail

MOST_PICTURES = 240
MOST_BARE = 300
PICTURE_SIDE = 220

# In the order of the page: what needs a person first. The title, what it means, what a decision does.
KINDS: dict[str, tuple[str, str]] = {
    "label_conflict": (
        "One photo, two labels",
        "One picture stands under two labels. Where that is certain no copy is used: drop the wrong one and the other "
        "is used again. Near copies under two labels are used as they are.",
    ),
    "label_suspect": (
        "Doubtful labels",
        "A classifier that never saw the photo takes it for another class. Many of these labels are right all the "
        "same: hard photos and drawings end up here too. The likeliest errors come first.",
    ),
    "confound": (
        "Giveaways beside the animal",
        "Something in the files tells classes apart. A classifier may learn that and fail on other photos.",
    ),
    "near_duplicate": (
        "Near duplicates",
        "One picture rescaled, saved again, cropped, mirrored or with other light, beside the largest of its copies. "
        "They are used, on one side of the split. Drop those you do not want.",
    ),
    "exact_duplicate": (
        "Surplus copies",
        "The same picture more than once. One copy is used; nothing needs to be done.",
    ),
    "unreadable": ("Unreadable files", "They cannot be used. Bring them again from where they came, or forget them."),
    "blank": ("Blank photos", "One even colour; set aside."),
    "tiny": ("Very small photos", "Kept, though little can be seen. Drop those that show nothing."),
    "misnamed": ("Other format than the name says", "Read by their content; nothing needs to be done."),
}


@dataclass(frozen=True)
class CheckContent:
    """What the page shows: the findings with their photos, the label ranking where there is one, and notices."""

    findings: Findings
    ranking: LabelRanking | None = None
    notices: Sequence[str] = ()


def write_check(content: CheckContent, folder: Path) -> Path:
    """Write `check.html`, `findings.csv` and, where labels were ranked, `label_ranking.csv` into `folder`.

    Returns the path of the page. Each file is replaced whole; the same content gives the same bytes.
    """
    save_findings(content.findings, folder / "findings.csv")
    if content.ranking is not None:
        save_ranking([content.ranking], folder / "label_ranking.csv")
    page = folder / "check.html"
    files.write_text(page, render_check(content))
    return page


def render_check(content: CheckContent) -> str:
    """Return the HTML of the page; everything that people named is escaped by the template."""
    catalogue, found = content.findings.catalogue, content.findings.findings
    builder = _Builder(content)
    groups = builder.groups()
    data = {
        "photos": [{"path": photo.path, "label": photo.label} for photo in builder.shown],
        "suggestions": builder.suggestions,
        "classes": list(catalogue.class_names),
        "key": hashlib.sha256("\0".join(photo.sha256 + photo.path for photo in builder.shown).encode()).hexdigest(),
    }
    counts = Counter(photo.label for photo in content.findings.usable)
    return (
        create_environment("check")
        .get_template("check.html.jinja")
        .render(
            title=f"Check of {wording.plain(catalogue.root.name or str(catalogue.root))}",
            photos=wording.counted(len(catalogue.photos), "photo"),
            usable=wording.whole(len(content.findings.usable)),
            classes=wording.counted(len(counts), "class", "classes"),
            findings=wording.counted(len(found), "finding"),
            groups=groups,
            notices=[wording.plain(notice) for notice in content.notices],
            pictures_left=builder.pictures_left,
            # As ASCII and without "<", so that no name can end the script element that holds it.
            data=Markup(json.dumps(data).replace("<", "\\u003c")),
        )
    )


class _Builder:
    """Gathers the cards of each kind, the photos on them and their pictures, within the page's limits."""

    def __init__(self, content: CheckContent) -> None:
        findings = content.findings
        self._catalogue = findings.catalogue
        self._photos = {photo.path: photo for photo in findings.catalogue.photos}
        self._by_kind: dict[str, list[Finding]] = {}
        order = {row.path: row.rank for row in content.ranking.rows} if content.ranking else {}
        self._ranked = {row.path: row for row in content.ranking.suspects} if content.ranking else {}
        for finding in findings.findings:
            self._by_kind.setdefault(finding.kind, []).append(finding)
        self._by_kind.get("label_suspect", []).sort(key=lambda finding: order.get(finding.path, 0))
        self._numbers: dict[str, int] = {}
        self.shown: list[Photo] = []
        self.suggestions: dict[int, str] = {}
        self.pictures_left = 0

    def groups(self) -> list[dict[str, Any]]:
        """Return each kind with its cards, in the page's order."""
        kinds = [kind for kind in KINDS if kind in self._by_kind]
        kinds += sorted(set(self._by_kind) - set(KINDS))
        pairs = {kind: _distinct(self._by_kind[kind]) for kind in kinds}
        wanted = {kind: sum(1 + bool(f.other_path) for f in pairs[kind] if f.path) for kind in kinds}
        quotas = _share_out(wanted, MOST_PICTURES)
        return [self._group(kind, pairs[kind], quotas[kind]) for kind in kinds]

    def _group(self, kind: str, findings: Sequence[Finding], quota: int) -> dict[str, Any]:
        title, meaning = KINDS.get(kind, (kind.replace("_", " ").capitalize(), ""))
        cards, bare = [], 0
        for number, finding in enumerate(findings):
            photos = [path for path in (finding.path, finding.other_path) if path in self._photos]
            pictured = bool(photos) and len(photos) <= quota
            quota = quota - len(photos) if pictured else 0
            bare += bool(photos) and not pictured
            if bare > MOST_BARE:
                left = findings[number:]
                break
            cards.append(self._card(finding, photos, pictured))
        else:
            left = ()
        self.pictures_left += bare - (1 if left else 0) + len(left)
        return {
            "id": kind.replace("_", "-"),
            "title": title,
            "meaning": meaning,
            "aside": all(map(sets_aside, findings)),
            "count": wording.whole(len(self._by_kind[kind])),
            "cards": cards,
            "pairs": any(len(card["photos"]) > 1 for card in cards),
            "left": wording.whole(len(left)) if left else "",
            "left_from": wording.plain(left[0].path) if left else "",
        }

    def _card(self, finding: Finding, paths: Sequence[str], pictured: bool) -> dict[str, Any]:
        ranked = self._ranked.get(finding.path) if finding.kind == "label_suspect" else None
        card = {
            "detail": _sentence(wording.plain(finding.detail)),
            "suggestion": wording.plain(ranked.suggestion) if ranked else "",
            "probability": f"{ranked.probability * 100:.0f} %" if ranked else "",
            "photos": [
                {
                    "number": self._number(path),
                    "path": wording.plain(path),
                    "label": wording.plain(self._photos[path].label),
                    "picture": data_uri(self._thumbnail(path)) if pictured else "",
                    "pictured": pictured,
                }
                for path in paths
            ],
        }
        if ranked:
            self.suggestions[self._number(finding.path)] = ranked.suggestion
        return card

    def _number(self, path: str) -> int:
        if path not in self._numbers:
            self._numbers[path] = len(self.shown)
            self.shown.append(self._photos[path])
        return self._numbers[path]

    def _thumbnail(self, path: str) -> bytes | None:
        try:
            photo = self._photos[path]
            return create_thumbnail(self._catalogue.read_bytes(photo), PICTURE_SIDE, photo.box)
        except (DecodeError, OSError, ValueError):
            return None


def _sentence(detail: str) -> str:
    """Return a finding's detail as it stands on a card, without the words that only its row in a table needs."""
    text = detail.removeprefix("the whole set: ")
    return text[:1].upper() + text[1:]


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings without those that say of a pair what an earlier one says from its other end."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for finding in findings:
        ends = tuple(sorted((finding.path, finding.other_path)))
        if not finding.other_path or ends not in seen:
            kept.append(finding)
        seen.add(ends)
    return kept


def _share_out(wanted: dict[str, int], limit: int) -> dict[str, int]:
    """Divide a number of pictures among the kinds: each what it wants, as far as all can have as much."""
    shares: dict[str, int] = {}
    for left, kind in zip(range(len(wanted), 0, -1), sorted(wanted, key=lambda k: wanted[k]), strict=True):
        shares[kind] = min(wanted[kind], limit // left)
        limit -= shares[kind]
    return shares
