from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photo_files import encode, scene, write
from PIL import Image, ImageDraw

from wildtune.photos import near
from wildtune.photos.audit import Findings, audit, load_findings, save_findings
from wildtune.photos.banding import Search, find_close
from wildtune.photos.catalogue import Photo, create_catalogue, photo_sha256
from wildtune.photos.hashes import create_hashes, create_thumbnail_pixels, mirror_mask, window_coefficients, windows
from wildtune.photos.near import find_feature_candidates, find_near_pairs
from wildtune.photos.register import register
from wildtune.photos.sources import load_photos
from wildtune.photos.split import split_photos
from wildtune.recipe import SplitOptions


def changed(pixels: np.ndarray, kind: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    if kind == "rescaled":
        return np.asarray(Image.fromarray(pixels).resize((width * 3 // 5, height * 3 // 5), Image.Resampling.BICUBIC))
    if kind == "cropped":
        return pixels[height // 10 :, width // 20 : -width // 10]
    if kind == "mirrored":
        return pixels[:, ::-1]
    return np.clip(pixels * 0.7 + 10, 0, 255).astype(np.uint8)


WORDS = {
    "rescaled": "rescaled or re-encoded",
    "cropped": "cropped",
    "mirrored": "mirrored",
    "light": "brightness or contrast changed",
}


def check(root: Path, photos: dict[str, bytes]) -> Findings:
    for name, data in photos.items():
        write(root / name, data)
    return audit(load_photos(root))


@pytest.mark.parametrize("kind", WORDS)
def test_every_kind_is_found_and_named(tmp_path: Path, kind: str) -> None:
    photos = {f"{'ab'[i % 2]}/{i}.jpg": encode(scene(i), quality=90) for i in range(12)}
    for i in range(4):
        photos[f"{'ab'[i % 2]}/copy{i}.jpg"] = encode(changed(scene(i), kind), quality=70)
    findings = check(tmp_path, photos)
    found = {frozenset((f.path, f.other_path)): f for f in findings.findings}
    assert set(found) == {frozenset((f"{'ab'[i % 2]}/copy{i}.jpg", f"{'ab'[i % 2]}/{i}.jpg")) for i in range(4)}
    for finding in found.values():
        assert (finding.kind, finding.severity) == ("near_duplicate", "warning")
        assert f": {WORDS[kind]} against {finding.other_path}" in finding.detail
    assert len(findings.usable) == 16, "near copies are kept"
    split = split_photos(findings, SplitOptions())
    sides = dict(zip((p.path for p in split.photos), split.sides, strict=True))
    assert all(len({sides[path] for path in pair}) == 1 for pair in found)


def test_several_changes_and_a_chain_end_in_one_group(tmp_path: Path) -> None:
    first = scene(1)
    both = changed(changed(first, "mirrored"), "cropped")
    photos = {"a/1.jpg": encode(first), "a/2.jpg": encode(both), "a/3.jpg": encode(changed(both, "rescaled"))}
    photos |= {f"b/{i}.jpg": encode(scene(50 + i)) for i in range(4)}
    findings = check(tmp_path, photos)
    assert dict(findings.near_groups) == dict.fromkeys(("a/1.jpg", "a/2.jpg", "a/3.jpg"), "a/1.jpg")
    assert "mirrored and cropped against a/1.jpg" in findings.findings[0].detail
    save_findings(findings, tmp_path / "findings.csv")
    assert load_findings(tmp_path / "findings.csv") == findings.findings


def test_near_copies_under_two_labels_are_kept_and_said_so(tmp_path: Path) -> None:
    photos = {"wolf/1.png": encode(scene(1), "PNG"), "wolf/2.jpg": encode(scene(2))}
    photos["dog/1.jpg"] = encode(changed(scene(1), "rescaled"))
    findings = check(tmp_path, photos)
    conflicts = [f for f in findings.findings if f.kind == "label_conflict"]
    assert [(f.path, f.severity, f.other_path) for f in conflicts] == [
        ("dog/1.jpg", "warning", "wolf/1.png"),
        ("wolf/1.png", "warning", "dog/1.jpg"),
    ]
    assert "'dog' here" in conflicts[0].detail
    assert len(findings.usable) == 3


def test_photos_set_aside_are_no_partners(tmp_path: Path) -> None:
    data = encode(scene(1))
    photos = {"a/1.jpg": data, "b/1.jpg": data, "b/2.jpg": encode(scene(1), quality=60), "a/3.jpg": encode(scene(3))}
    findings = check(tmp_path, photos)
    assert [f.kind for f in findings.findings] == ["exact_duplicate", "label_conflict", "label_conflict"]


def thumbnails_of(*pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = np.stack([create_thumbnail_pixels(picture) for picture in pictures])
    return small, np.array([p.shape[1] / p.shape[0] for p in pictures], np.float32)


def test_hashes_bear_light_and_know_the_mirrored_photo() -> None:
    thumbnails, _ = thumbnails_of(*(scene(i) for i in range(20)))
    plain, dark = create_hashes(thumbnails), create_hashes(np.rint(thumbnails * 0.5 + 20).astype(np.uint8))
    assert np.bitwise_count(plain.full ^ dark.full).max() <= 3
    mirrored = create_hashes(thumbnails[:, :, ::-1])
    assert np.bitwise_count(plain.full ^ mirrored.full ^ mirror_mask()).max() <= 1
    assert (np.bitwise_count(plain.weak) == 10).all()
    assert plain.windows.shape == (20, len(windows()))


def test_windows_reach_every_crop_of_three_quarters() -> None:
    grid = windows()
    edges = np.stack([grid[:, 0], grid[:, 1], grid[:, 0] + grid[:, 2], grid[:, 1] + grid[:, 3]], axis=1)
    rng = np.random.default_rng(0)
    for _ in range(500):
        width = rng.uniform(0.75, 1)
        height = rng.uniform(0.75 / width, 1)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        off = np.abs(edges - (x, y, x + width, y + height)).max(axis=1).min()
        assert off <= 0.085


def test_a_window_of_a_photo_has_the_coefficients_of_the_crop() -> None:
    picture = scene(4, 320, 320)
    left, top, width, height = (round(float(v) * 320) for v in windows()[7])
    thumbnails, _ = thumbnails_of(picture, picture[top : top + height, left : left + width])
    coefficients = window_coefficients(thumbnails)
    a, b = coefficients[0, 7], coefficients[1, 0]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_registration_finds_the_window() -> None:
    picture = scene(5, 200, 300)
    thumbnails, aspects = thumbnails_of(picture, picture[20:190, 30:285][:, ::-1])
    lies = register(thumbnails, aspects, np.array([[0, 1]]))
    assert lies.mirrored[0]
    assert lies.swapped[0]
    assert np.abs(lies.window[0] - (30 / 300, 20 / 200, 255 / 300, 170 / 200)).max() < 0.02
    assert lies.agreement[0] > 0.97
    assert len(register(thumbnails, aspects, np.zeros((0, 2), np.int64)).detail) == 0


def test_search_finds_close_hashes_and_no_others() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    weak = np.full(3000, 0b11111 << 3, np.uint64)
    hashes[1000:2000] = hashes[:1000] ^ np.uint64(0b10100 << 1)  # two bits, one of them known to be weak
    pairs = find_close(hashes, weak, hashes[:, None], (0,), Search())
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).max() <= Search().max_distance
    found = set(map(tuple, pairs.tolist()))
    assert np.mean([(i, i + 1000) in found for i in range(1000)]) > 0.97


def test_many_photos_alike_cost_no_more_than_the_limit_and_stay_linked() -> None:
    hashes = np.full(5000, 12345, np.uint64)
    search = Search(most_in_drawer=8, most_each=8)
    pairs = find_close(hashes, np.zeros(5000, np.uint64), hashes[:, None], (0,), search)
    assert len(pairs) <= 8 * 5000
    assert set(range(5000)) == set(pairs.ravel().tolist())


def test_features_add_candidates_and_pixels_decide() -> None:
    rng = np.random.default_rng(2)
    features = rng.standard_normal((300, 64), dtype=np.float32)
    features[200:] = features[:100] + 0.1 * rng.standard_normal((100, 64), dtype=np.float32)
    found = set(map(tuple, find_feature_candidates(features).tolist()))
    assert np.mean([(i, i + 200) in found for i in range(100)]) > 0.95
    picture = scene(3, 240, 360)
    pictures = [*(scene(10 + i) for i in range(10)), picture, picture[:, 60:290], scene(99)]
    thumbnails, aspects = thumbnails_of(*pictures)
    vectors = rng.standard_normal((13, 32)).astype(np.float32)
    vectors[10] = vectors[11] = vectors[12]  # a heavy crop, and a photo that only the backbone takes for the same
    pairs = find_near_pairs(thumbnails, aspects, vectors)
    assert [(p.first, p.second, p.relation) for p in pairs] == [(10, 11, "cropped")]
    assert set(find_near_pairs(thumbnails, aspects)) <= set(pairs)
    with pytest.raises(ValueError, match="features must be"):
        find_near_pairs(thumbnails, aspects, vectors[:5])


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count: int) -> None:
    thumbnails = np.zeros((count, 32, 32), np.uint8)
    assert find_near_pairs(thumbnails, np.ones(count, np.float32), np.zeros((count, 4), np.float32)) == ()


def bird(x: int, y: int, wings: int) -> np.ndarray:
    """A small dark bird in an even sky."""
    image = Image.new("RGB", (300, 200), (120, 160, 220))
    ImageDraw.Draw(image).polygon([(x - wings, y - 8), (x, y), (x + wings, y - 8), (x, y + 10)], fill=(20, 20, 20))
    return np.asarray(image)


def test_one_bird_in_the_sky_is_not_laid_over_another(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    birds = [bird(*(int(v) for v in rng.integers((60, 50, 12), (240, 150, 50)))) for _ in range(60)]
    thumbnails, aspects = thumbnails_of(*birds, birds[0])
    pairs = find_near_pairs(thumbnails, aspects)
    assert (0, 60) in {(pair.first, pair.second) for pair in pairs}
    assert not [pair for pair in pairs if "cropped" in pair.relation or "mirrored" in pair.relation]
    monkeypatch.setattr(near, "LEAST_BLOCKS", 0)
    assert len(find_near_pairs(thumbnails, aspects)) > 50, "else the rule is not needed"


def test_the_same_photos_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails, aspects = thumbnails_of(scene(11), scene(12), scene(11)[:, ::-1])
    before = find_near_pairs(thumbnails, aspects)
    assert [(pair.first, pair.second) for pair in before] == [(0, 2)]
    compared = []
    monkeypatch.setattr(near, "_find_near_pairs", lambda *_: compared.append(1) or [])
    assert find_near_pairs(thumbnails, aspects) == before
    assert not compared
    assert find_near_pairs(thumbnails[:2], aspects[:2]) == ()
    assert compared


def test_crops_of_one_photo_are_no_copies_and_of_two_copies_are(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", encode(scene(1, 400, 600)))
    write(tmp_path / "2.jpg", encode(scene(1, 400, 600), quality=60))
    boxes = {"1.jpg#1": (0.1, 0.1, 0.5, 0.5), "1.jpg#2": (0.1, 0.1, 0.5, 0.52), "2.jpg#1": (0.1, 0.1, 0.5, 0.5)}
    photos = []
    for path, box in boxes.items():
        data = (tmp_path / path[:5]).read_bytes()
        photos.append(Photo(path, "bear", photo_sha256(data, box), container=path[:5], box=box))
    findings = audit(create_catalogue(tmp_path, photos)).findings
    assert {f.kind for f in findings} == {"near_duplicate"}
    assert all("2.jpg" in f.path + f.other_path for f in findings if "itself" not in f.detail)
    assert audit(create_catalogue(tmp_path, photos[:2])).findings == ()


def test_features_of_an_audit_are_those_of_its_photos(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.jpg", b"broken")
    wide = scene(3, 240, 360)
    for i, pixels in enumerate([wide, wide[20:220, 100:330], *(scene(20 + k) for k in range(6))], start=1):
        write(tmp_path / "a" / f"{i}.jpg", encode(pixels, quality=90))
    catalogue = load_photos(tmp_path)
    rng = np.random.default_rng(0)
    vectors = {photo.path: rng.standard_normal(32).astype(np.float32) for photo in catalogue.photos}
    vectors["a/2.jpg"] = vectors["a/1.jpg"]
    features = np.stack([vectors[photo.path] for photo in catalogue.photos])
    assert audit(catalogue).near_groups == {}
    assert dict(audit(catalogue, features=features).near_groups) == dict.fromkeys(("a/1.jpg", "a/2.jpg"), "a/1.jpg")
    with pytest.raises(ValueError, match="a row for each of the 9"):
        audit(catalogue, features=features[1:])
