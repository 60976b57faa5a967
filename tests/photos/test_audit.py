from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, noise, write

from wildtune.photos import audit as audit_module
from wildtune.photos.audit import KINDS, audit, load_findings, save_findings
from wildtune.photos.decode import DecodeError
from wildtune.photos.sources import load_photos


def make_faults(root: Path) -> None:
    photos = {
        "a/good.jpg": encode(noise(1)),
        "a/empty.jpg": b"",
        "a/cut.jpg": encode(noise(2))[:-30],
        "a/really_png.jpg": encode(noise(3), "PNG"),
        "a/tiny.jpg": encode(noise(4, 20, 50)),
        "a/blank.png": encode(np.full((40, 40, 3), (90, 10, 200), np.uint8), "PNG"),
        "a/copy.jpg": encode(noise(5)),
        "a/copy2.jpg": encode(noise(5)),
        "a/copy3.jpg": encode(noise(5)),
        "b/conflict.jpg": encode(noise(6)),
        "a/conflict.jpg": encode(noise(6)),
        "b/fine.webp": encode(noise(7), "WEBP"),
        "b/empty.jpg": b"",
    }
    for name, data in photos.items():
        write(root / name, data)


def test_kinds(tmp_path: Path) -> None:
    make_faults(tmp_path)
    calls: list[tuple[int, int]] = []
    findings = audit(load_photos(tmp_path), progress=lambda done, total: calls.append((done, total)))
    by_kind = defaultdict(list)
    for finding in findings.findings:
        assert finding.kind in KINDS
        by_kind[finding.kind].append((finding.path, finding.other_path))
    assert by_kind == {
        "unreadable": [("a/cut.jpg", ""), ("a/empty.jpg", ""), ("b/empty.jpg", "")],
        "misnamed": [("a/really_png.jpg", "")],
        "tiny": [("a/tiny.jpg", "")],
        "blank": [("a/blank.png", "")],
        "exact_duplicate": [
            ("a/copy2.jpg", "a/copy.jpg"),
            ("a/copy3.jpg", "a/copy.jpg"),
            ("b/conflict.jpg", "a/conflict.jpg"),
        ],
        "label_conflict": [("a/conflict.jpg", "b/conflict.jpg"), ("b/conflict.jpg", "a/conflict.jpg")],
    }
    usable = {photo.path for photo in findings.usable}
    assert usable == {"a/good.jpg", "a/really_png.jpg", "a/tiny.jpg", "a/copy.jpg", "b/fine.webp"}
    assert calls == [(i, 13) for i in range(1, 14)]
    save_findings(findings, tmp_path / "findings.csv")
    assert (tmp_path / "findings.csv").read_text().startswith("path,kind,severity,detail,other_path\n")
    assert load_findings(tmp_path / "findings.csv") == findings.findings


def test_the_copy_on_the_test_side_is_kept(tmp_path: Path) -> None:
    for name in ("train/a/1.jpg", "val/a/1.jpg", "test/a/9.jpg"):
        write(tmp_path / name, encode(noise(1)))
    findings = audit(load_photos(tmp_path))
    assert [photo.path for photo in findings.usable] == ["test/a/9.jpg"]


def test_faint_photos_are_not_blank(tmp_path: Path) -> None:
    faint = np.full((300, 300, 3), 40, np.uint8)
    faint[100:200, 100:200] = 60
    write(tmp_path / "a" / "1.png", encode(faint, "PNG"))
    assert audit(load_photos(tmp_path)).findings == ()


def test_what_a_photo_shows_is_remembered_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/one.png", encode(noise(1), "PNG"))
    write(tmp_path / "a/cut.jpg", encode(noise(2))[:-30])
    write(tmp_path / "b/two.jpg", encode(noise(3)))
    first = audit(load_photos(tmp_path))
    decoded: list[object] = []
    real = audit_module.decode_with_facts
    monkeypatch.setattr(audit_module, "decode_with_facts", lambda *a: decoded.append(a) or real(*a))
    assert audit(load_photos(tmp_path)).findings == first.findings
    assert not decoded
    (tmp_path / "a/one.png").rename(tmp_path / "b/one.jpg")  # what is judged by its name is judged anew
    write(tmp_path / "b/three.jpg", encode(noise(4)))
    kinds = {(finding.path, finding.kind) for finding in audit(load_photos(tmp_path)).findings}
    assert kinds == {("a/cut.jpg", "unreadable"), ("b/one.jpg", "misnamed")}
    assert len(decoded) == 1


def test_what_was_wrong_for_a_moment_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a/one.jpg", encode(noise(8)))
    write(tmp_path / "b/two.jpg", encode(noise(9)))
    catalogue, good = load_photos(tmp_path), path.read_bytes()
    path.write_bytes(good[:-40])  # half copied when it is looked at, whole when it was listed
    assert [finding.kind for finding in audit(catalogue).findings] == ["unreadable"]
    path.write_bytes(good)
    real = audit_module.decode_with_facts

    def too_large(*_: object) -> object:
        raise DecodeError("not enough memory to decode it") from MemoryError()

    monkeypatch.setattr(audit_module, "decode_with_facts", too_large)
    assert "not enough memory" in audit(catalogue).findings[0].detail
    monkeypatch.setattr(audit_module, "decode_with_facts", real)
    assert audit(catalogue).findings == ()
