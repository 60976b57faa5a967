"""What the user decided about single photos: kept, dropped or given another label, from a CSV file of their own.

The photos and their folder stay as they are: corrections make another Catalogue of the same photos.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.language import recorded
from wildtune.photos.catalogue import Catalogue, create_catalogue
from wildtune.photos.sources.listing import describe_problems

MOST_PROBLEMS = 20
_ADVICE = "Mend these rows, or download the file anew."
ACTIONS = ("keep", "drop", "relabel")


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision.

    path    the photo's, as in the catalogue and in findings.csv
    action  "keep" (looked at, right as it is), "drop" (do not use it) or "relabel"
    label   the class it shall have, one of the photos' classes; "" unless the action is "relabel"
    """

    path: str
    action: str
    label: str = ""


def save_corrections(corrections: Iterable[Correction], path: Path) -> None:
    """Write corrections as a CSV file with the columns path, action, label, so that reading it loses nothing."""
    columns = (field.name for field in fields(Correction))
    # Quoted throughout, as the page of `wildtune check` writes them: a lone carriage return is kept only so.
    files.write_text(path, files.csv_text(columns, map(astuple, corrections), quoted=True))


def load_corrections(path: Path) -> tuple[Correction, ...]:
    """Read a file of corrections; columns in any order, others passed over, repeated rows once.

    Raises PhotosError with every problem when the file cannot be read, a column is missing, an action is unknown
    or a photo has two different decisions. Paths and labels are checked by `apply_corrections`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PhotosError(
            f"The corrections {path} cannot be read: {error.strerror}.\n"
            "Give the CSV file that the page of `wildtune check` downloads."
        ) from error
    except UnicodeDecodeError as error:
        raise PhotosError(f"{path} is not UTF-8 text (byte {error.start}). Save it as 'CSV UTF-8'.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in ("path", "action", "label") if name not in header]
    if missing:
        raise PhotosError(
            f"{path} must have the columns path, action and label. Missing: {', '.join(missing)}; found: "
            f"{', '.join(header) or 'nothing'}.\nSave it with commas between the columns."
        )
    found: dict[str, Correction] = {}
    problems = []
    for cells in reader:
        if not cells:
            continue
        row = dict(zip(header, cells, strict=False))
        correction = Correction(row.get("path", ""), row.get("action", "").strip(), row.get("label", ""))
        problem = _wrong_by_itself(correction)
        earlier = found.setdefault(correction.path, correction)
        if not problem and earlier != correction:
            problem = f"is to be '{_say(earlier)}' and '{_say(correction)}'"
        if problem:
            problems.append(f"line {reader.line_num}: {correction.path!r} {problem}")
    if problems:
        raise PhotosError(describe_problems(path, problems, MOST_PROBLEMS, _ADVICE))
    return tuple(found.values())


def apply_corrections(catalogue: Catalogue, corrections: Iterable[Correction], source: Path) -> Catalogue:
    """Return a catalogue with the decisions carried out and a notice that says so; the given one is left as it is.

    `source` is the corrections' file, for messages. Raises PhotosError naming every photo and label that the
    catalogue does not have.
    """
    by_path = {correction.path: correction for correction in corrections}
    known = {photo.path for photo in catalogue.photos}
    problems: list[str] = []
    for correction in by_path.values():
        if correction.path not in known:
            near = _nearest(correction.path, known) if len(problems) < MOST_PROBLEMS else ""
            problems.append(f"{correction.path!r} is none of the photos{near}")
        if correction.action == "relabel" and correction.label not in catalogue.class_names:
            near = _nearest(correction.label, catalogue.class_names)
            problems.append(f"{correction.path!r} cannot become {correction.label!r}: no such class{near}")
    if problems:
        advice = f"Photos: {catalogue.root}\n{_ADVICE}"
        raise PhotosError(describe_problems(source, problems, MOST_PROBLEMS, advice))
    photos, dropped, changed = [], 0, 0
    for photo in catalogue.photos:
        wanted = by_path.get(photo.path)
        if wanted is not None and wanted.action == "drop":
            dropped += 1
            continue
        if wanted is not None and wanted.action == "relabel" and wanted.label != photo.label:
            changed += 1
            photo = replace(photo, label=wanted.label)
        photos.append(photo)
    kept = sum(correction.action == "keep" for correction in by_path.values())
    notice = recorded(
        "notice",
        "Corrections from {path}: {changed} relabelled, {dropped} dropped, {kept} confirmed.",
        path=source.name,
        changed=changed,
        dropped=dropped,
        kept=kept,
    )
    return create_catalogue(catalogue.root, photos, (*catalogue.notices, notice))


def _wrong_by_itself(correction: Correction) -> str:
    if not correction.path:
        return "has no path"
    if correction.action not in ACTIONS:
        return f"has the action {correction.action!r}; must be keep, drop or relabel"
    if correction.action == "relabel" and not correction.label:
        return "is to be relabelled, but the label is empty"
    return ""


def _say(correction: Correction) -> str:
    return f"{correction.action} {correction.label}".strip()


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
