"""Copies that the files prove: the same pixels, or a JPEG made of the other; and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, scene, write
from PIL import Image

from wildtune.photos import same as same_module
from wildtune.photos.audit import Findings, audit
from wildtune.photos.decode import decode_photo
from wildtune.photos.same import is_same_picture
from wildtune.photos.sources import load_photos
from wildtune.photos.split import save_split, split_photos
from wildtune.recipe import SplitOptions

LARGE = scene(1, 300, 420)
JPEG = encode(LARGE, quality=87)


def kinds_of(findings: Findings) -> list[tuple[str, str, str]]:
    return [(f.kind, f.path, f.other_path) for f in findings.findings]


def check(root: Path, photos: dict[str, bytes]) -> Findings:
    for name, data in {**photos, "a/other.jpg": encode(scene(7)), "b/another.jpg": encode(scene(8))}.items():
        write(root / name, data)
    return audit(load_photos(root))


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        (lambda: encode(Image.fromarray(LARGE), quality=87, progressive=True), "same pixels as a/1.jpg"),
        (lambda: JPEG[:2] + b"\xff\xfe\0\x08edited" + JPEG[2:], "same pixels as a/1.jpg"),
        (lambda: encode(decode_photo(JPEG), "PNG"), "same picture as b/2.jpg (JPEG here, PNG there)"),
        (lambda: encode(LARGE, "PNG"), "same picture as b/2.jpg (JPEG here, PNG there)"),
        (lambda: encode(LARGE, "BMP"), "same picture as b/2.jpg (JPEG here, BMP there)"),
    ],
    ids=["progressive", "comment", "decoded", "original", "bitmap"],
)
def test_the_same_picture_is_set_aside(tmp_path: Path, copy: Callable[[], bytes], words: str) -> None:
    data = copy()
    findings = check(tmp_path, {"a/1.jpg": JPEG, "a/2.jpg": data})
    (finding,) = [f for f in findings.findings if f.kind != "misnamed"]
    assert finding.kind == "exact_duplicate"
    assert words.replace("b/", "a/") in finding.detail
    assert len(findings.usable) == 3
    conflict = check(tmp_path / "two labels", {"a/1.jpg": JPEG, "b/2.jpg": data})
    assert sorted(f.kind for f in conflict.findings if f.kind != "misnamed") == [
        "exact_duplicate",
        "label_conflict",
        "label_conflict",
    ]
    assert {f.severity for f in conflict.findings if f.kind == "label_conflict"} == {"error"}
    assert {photo.path for photo in conflict.usable} == {"a/other.jpg", "b/another.jpg"}


@pytest.mark.parametrize(
    "other",
    [
        lambda: encode(LARGE, quality=80),
        lambda: encode(np.clip(LARGE.astype(int) + 1, 0, 255).astype(np.uint8), "PNG"),
        lambda: encode(Image.fromarray(decode_photo(JPEG)), quality=60),
    ],
    ids=["quality", "lighter", "again"],
)
def test_what_is_not_proven_is_a_near_copy_and_kept(tmp_path: Path, other: Callable[[], bytes]) -> None:
    findings = check(tmp_path, {"a/1.jpg": JPEG, "a/2.jpg": other()})
    assert [kind for kind, *_ in kinds_of(findings) if kind != "misnamed"] == ["near_duplicate"]
    assert len(findings.usable) == 4


def test_one_pixel_tells_photos_apart() -> None:
    pixels = decode_photo(JPEG).copy()
    assert is_same_picture(JPEG, encode(pixels, "PNG"))
    pixels[150, 200] ^= 255
    assert not is_same_picture(JPEG, encode(pixels, "PNG"))
    assert not is_same_picture(encode(pixels, "PNG"), JPEG)
    grey = encode(Image.fromarray(LARGE).convert("L"), quality=90)
    assert is_same_picture(encode(Image.fromarray(LARGE).convert("L"), "PNG"), grey)
    assert not is_same_picture(JPEG, encode(LARGE[:, :-1], "PNG"))


def test_files_are_decoded_whole_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check(tmp_path, {"a/1.jpg": JPEG, "a/2.png": encode(LARGE, "PNG")})
    monkeypatch.setattr(same_module, "is_same_picture", lambda *_: pytest.fail("looked at again"))
    assert audit(load_photos(tmp_path)).findings == first.findings


def test_a_chain_of_copies_leaves_one_and_its_near_copies(tmp_path: Path) -> None:
    photos = {"a/1.jpg": JPEG, "a/2.jpg": JPEG, "a/3.png": encode(LARGE, "PNG"), "a/4.bmp": encode(LARGE, "BMP")}
    photos["a/5.jpg"] = encode(LARGE[20:, 15:], quality=80)
    findings = check(tmp_path, photos)
    assert kinds_of(findings) == [
        ("exact_duplicate", "a/1.jpg", "a/3.png"),
        ("exact_duplicate", "a/2.jpg", "a/3.png"),
        ("exact_duplicate", "a/4.bmp", "a/3.png"),
        ("near_duplicate", "a/5.jpg", "a/3.png"),
    ]


def test_a_picture_keeps_its_earlier_side_in_another_format(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / "p" / "ab"[i % 2] / f"{i}.jpg", encode(scene(i)))
    for seed in range(8):
        options = SplitOptions(seed=seed)
        before = split_photos(audit(load_photos(tmp_path / "p")), options)
        if before.sides[[p.path for p in before.photos].index("a/0.jpg")] == "test":
            break
    save_split(before, tmp_path / "split.csv")
    write(tmp_path / "p" / "a" / "0.png", encode(scene(0), "PNG"))
    kept = SplitOptions(seed=seed + 1, keep=str(tmp_path / "split.csv"))
    after = split_photos(audit(load_photos(tmp_path / "p")), kept)
    sides = dict(zip((p.path for p in after.photos), after.sides, strict=True))
    assert "a/0.jpg" not in sides
    assert sides["a/0.png"] == "test"
