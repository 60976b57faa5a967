"""How many planted near copies the audit finds and names rightly, and how its search grows with the photos.

python benchmarks/near_duplicates.py PHOTOS [--each 100] [--seed 0]   recall and precision of each kind
python benchmarks/near_duplicates.py --scale                          time and memory, on generated photos
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import resource
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from wildtune.photos.audit import Findings, audit
from wildtune.photos.banding import Search, find_close
from wildtune.photos.catalogue import Photo, create_catalogue
from wildtune.photos.decode import decode_photo
from wildtune.photos.groups import group_photos
from wildtune.photos.hashes import KEY_BITS, create_hashes, mirror_mask, windows
from wildtune.photos.near import find_feature_candidates
from wildtune.photos.register import register
from wildtune.photos.sources import load_photos
from wildtune.photos.split import split_photos
from wildtune.recipe import SplitOptions

# What is planted, and the words that must then name it.
WORDS = {
    "rescaled": "rescaled or re-encoded",
    "re-encoded": "rescaled or re-encoded",
    "cropped": "cropped",
    "mirrored": "mirrored",
    "light": "brightness or contrast changed",
    "all at once": "mirrored, cropped and brightness or contrast changed",
}
LEAST_SIDE = 48
ROWS, HASHES, FEATURES, WIDTH = 1_000_000, 1_000_000, 200_000, 1280


def scale(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = max(rng.uniform(0.4, 1.6), LEAST_SIDE / min(image.size))
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Keep 75 to 95 % of the area, anywhere, in any shape that allows."""
    area = rng.uniform(0.75, 0.95)
    width_share = rng.uniform(area, 1.0)
    width, height = round(image.width * width_share), round(image.height * area / width_share)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def mirror(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def relight(image: Image.Image, rng: random.Random) -> Image.Image:
    change = rng.choice([ImageEnhance.Brightness, ImageEnhance.Contrast])
    return change(image).enhance(rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.15, 1.4)]))


def keep(image: Image.Image, rng: random.Random) -> Image.Image:
    return image


STEPS = {
    "rescaled": [scale],
    "re-encoded": [keep],
    "cropped": [crop],
    "mirrored": [mirror],
    "light": [relight],
    "all at once": [crop, mirror, relight, scale],
}


def alter(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Return a near copy of a photo as a JPEG of quality 50 to 92."""
    image = Image.fromarray(decode_photo(data))
    for step in STEPS[kind]:
        image = step(image, rng)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=rng.randint(50, 92))
    return out.getvalue()


def plant(findings: Findings, folder: Path, each: int, seed: int) -> dict[str, tuple[str, str]]:
    """Copy the usable photos to a folder and near copies of some; return kind and source of each copy by path.

    Photos that have near copies already are no sources, so that every copy has one true partner.
    """
    rng = random.Random(seed)
    for photo in findings.usable:
        target = folder / photo.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(findings.catalogue.read_bytes(photo))
    free = sorted((p for p in findings.usable if p.path not in findings.near_groups), key=lambda p: p.path)
    rng.shuffle(free)
    each = min(each, len(free) // len(STEPS))
    planted = {}
    for number, kind in enumerate(STEPS):
        for photo in free[number * each : (number + 1) * each]:
            path = f"{photo.label}/planted-{len(planted):05}.jpg"
            (folder / path).write_bytes(alter(findings.catalogue.read_bytes(photo), kind, rng))
            planted[path] = (kind, photo.path)
    return planted


def measure(source: Path, each: int, seed: int) -> None:
    """Plant near copies among real photos and print what the audit makes of them."""
    clean = audit(load_photos(source))
    count = len(clean.near_groups) - len(set(clean.near_groups.values()))
    print(f"{source.name}: {len(clean.usable)} usable photos, {count} of them near copies that were there before")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = plant(clean, folder, each, seed)
        started = time.perf_counter()
        found = audit(load_photos(folder))
        seconds = time.perf_counter() - started
        print(f"{len(planted)} planted; {len(found.catalogue.photos)} photos checked in {seconds:.1f} s")
    truth = {frozenset((path, original)): kind for path, (kind, original) in planted.items()}
    before = clean.near_groups
    linked: Counter[str] = Counter()
    named: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    false = []
    for finding in found.findings:
        if finding.kind not in ("near_duplicate", "exact_duplicate"):
            continue
        pair = frozenset((finding.path, finding.other_path))
        kind = truth.get(pair)
        words = finding.detail.split(": ", 1)[1].split(" against ")[0]
        if finding.kind == "exact_duplicate":  # a JPEG that was made of a PNG and nothing else is proven to be one
            words = WORDS["re-encoded"]
        if kind is None:
            if before.get(finding.path, "?") != before.get(finding.other_path, "??"):
                false.append(finding)
                reported[words] += 1
            continue
        linked[kind] += 1
        reported[words] += 1
        named[kind] += words == WORDS[kind]
    print("kind          planted   found  recall   named so   precision of the name")
    kinds = Counter(kind for kind, _ in planted.values())
    for kind, total in kinds.items():
        same = [k for k in kinds if WORDS[k] == WORDS[kind]]
        precision = sum(named[k] for k in same) / max(reported[WORDS[kind]], 1)
        shares = f"{linked[kind] / total:7.1%} {named[kind] / total:10.1%} {precision:12.1%}"
        print(f"{kind:12} {total:8} {linked[kind]:7} {shares}")
    right = sum(linked.values())
    print(
        f"all          {len(planted):8} {right:7} {right / len(planted):7.1%}; false pairs {len(false)}, "
        f"precision {right / max(right + len(false), 1):.1%}"
    )
    for finding in false:
        print("  false:", finding.path, finding.detail)


def generate_hashes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return full, weak and window hashes like those of photos, and the planted pairs (P, 2).

    Bits are uneven, 2 % of the photos are all alike (black), windows differ from the whole in about ten bits, and
    each hundredth photo is a near copy: one window of another with five bits turned, three of them weak ones.
    """
    uneven = rng.uniform(0.35, 0.65, 64)
    width = len(windows())
    full = np.zeros(count, np.uint64)
    weak = np.zeros(count, np.uint64)
    index = np.zeros((count, width), np.uint64)
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for start in range(0, count, 100_000):
        rows = min(100_000, count - start)
        full[start : start + rows] = ((rng.random((rows, 64)) < uneven) * bits).sum(axis=1, dtype=np.uint64)
        few = rng.random((rows, KEY_BITS)).argsort(axis=1)[:, :10]
        weak[start : start + rows] = bits[few].sum(axis=1, dtype=np.uint64)
    full[rng.random(count) < 0.02] = full[0]
    for w in range(width):
        turned = bits[rng.integers(0, 64, (count, 10 if w else 1))]
        index[:, w] = full ^ (np.bitwise_xor.reduce(turned, axis=1) if w else np.uint64(0))
    planted = rng.permutation(count)[: count // 50].reshape(-1, 2)
    copies, sources = planted[:, 0], planted[:, 1]
    full[copies] = index[sources, rng.integers(0, width, len(copies))]
    some = weak[copies]
    for _ in range(3):
        lowest = some & (~some + np.uint64(1))
        full[copies] ^= lowest
        some ^= lowest
    for _ in range(2):
        full[copies] ^= bits[rng.integers(0, 64, len(copies))]
    index[copies, 0] = full[copies]
    return full, weak, index, planted


def generate_features(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32 (N, 1280) of 200 kinds of photo, and planted pairs with a cosine of about 0.95."""
    centres = rng.standard_normal((200, WIDTH), dtype=np.float32)
    features = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 20_000):
        rows = min(20_000, count - start)
        own = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        features[start : start + rows] = centres[rng.integers(0, 200, rows)] + own
    planted = rng.permutation(count)[: count // 50].reshape(-1, 2)
    noise = rng.standard_normal((len(planted), WIDTH), dtype=np.float32)
    features[planted[:, 0]] = features[planted[:, 1]] + 0.45 * noise
    return features, planted


def recall(pairs: np.ndarray, planted: np.ndarray, count: int) -> float:
    """Return the share of the planted pairs that were found."""
    codes = np.sort(planted, axis=1) @ np.array([count, 1])
    return float(np.isin(codes, pairs @ np.array([count, 1])).mean())


def generate_photos(count: int) -> tuple[list[Photo], dict[str, str]]:
    """Return photos of 200 classes, and the near copies of one in twenty by path.

    Half are of 500 cameras, a minute and a half from shot to shot but for every third, which comes ten seconds after
    the one before; one in ten has a group of the user's, of about 20 photos.
    """
    photos, near = [], {}
    start = datetime(2020, 1, 1)
    for i in range(count):
        label, camera = f"class {i % 200}", f"camera {i % 500}" if i % 2 else ""
        taken = (start + timedelta(seconds=90 * (i // 500) - 80 * (i // 500 % 3 == 2))).isoformat() if camera else ""
        group = f"group {i // 200}" if i % 10 == 0 else ""
        sha256 = hashlib.sha256(str(i).encode()).hexdigest()
        photos.append(Photo(f"{label}/{i}.jpg", label, sha256, group, camera=camera, taken=taken))
        if i % 20 < 2:
            near[photos[-1].path] = f"near {i // 20}"
    return photos, near


def time_split(count: int) -> None:
    """Print seconds of processor time and peak memory of cataloguing, grouping and splitting generated photos."""
    photos, near = generate_photos(count)
    started = time.process_time()
    catalogue = create_catalogue(Path("photos"), photos)
    listed = time.process_time()
    groups, _ = group_photos(catalogue.photos, near, {}, "auto")
    grouped = time.process_time()
    united = sum(len(group.photos) > 1 for group in groups)
    del groups
    split = split_photos(Findings(catalogue, (), near), SplitOptions())
    divided = time.process_time()
    print(
        f"{count:12,} {listed - started:10.1f} {grouped - listed:10.1f} {divided - grouped:10.1f} "
        f"{divided - started:10.1f} {peak_gib():9.2f} GiB; {united:,} groups of more than one, "
        f"{len(split.side('test')):,} test photos",
        flush=True,
    )


def print_growth(sizes: list[int], seconds: list[float]) -> None:
    """Print the power of the size that the time grows with, over the last doubling and over all."""
    powers = [np.log(seconds[-1] / seconds[k]) / np.log(sizes[-1] / sizes[k]) for k in (0, -2)]
    print(f"grows with the power {powers[0]:.2f} of the size over all, {powers[1]:.2f} over the last doubling")


def time_growth(share_of_all: float, search: str) -> None:
    """Print seconds of processor time and peak memory at a quarter, half and the whole size."""
    rng = np.random.default_rng(0)
    if search in ("split", "all"):
        print("photos        catalogue      group      split        all   peak memory")
        for share in (4, 2, 1):
            time_split(int(ROWS * share_of_all) // share)
    kinds = {"hashes": HASHES, "features": FEATURES}
    for kind in [kind for kind in kinds if search in (kind, "all")]:
        print("search             size  seconds   peak memory   candidates   planted found")
        sizes, seconds = [], []
        for share in (4, 2, 1):
            count = int(kinds[kind] * share_of_all) // share
            if kind == "hashes":
                full, weak, index, planted = generate_hashes(count, rng)
                started = time.process_time()
                pairs = find_close(full, weak, index, (0, int(mirror_mask())), Search())
            else:
                full = weak = index = None
                features, planted = generate_features(count, rng)
                started = time.process_time()
                pairs = find_feature_candidates(features)
            sizes.append(count)
            seconds.append(time.process_time() - started)
            report(kind, count, seconds[-1], pairs, planted)
            features = full = weak = index = pairs = None
        print_growth(sizes, seconds)
    time_pixels(rng)


def time_pixels(rng: np.random.Generator) -> None:
    """Print how many photos are hashed, and how many pairs compared, in a second."""
    thumbnails = rng.integers(0, 256, (4000, 32, 32), dtype=np.uint8)
    started = time.process_time()
    create_hashes(thumbnails)
    print(f"hashes made: {len(thumbnails) / (time.process_time() - started):.0f} photos a second")
    pairs = np.stack([np.arange(2000), np.arange(2000)], axis=1)  # each with itself, so that all are refined
    started = time.process_time()
    register(thumbnails, np.ones(4000, np.float32), pairs)
    print(f"pixels compared: {len(pairs) / (time.process_time() - started):.0f} pairs a second")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(name: str, count: int, seconds: float, pairs: np.ndarray, planted: np.ndarray) -> None:
    found = recall(pairs, planted, count)
    print(f"{name:10} {count:12,} {seconds:8.1f} {peak_gib():10.2f} GiB {len(pairs):12,} {found:12.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--search", choices=("split", "hashes", "features", "all"), default="all", help="of --scale")
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes of --scale")
    options = parser.parse_args()
    if options.photos:
        measure(options.photos, options.each, options.seed)
    if options.scale or not options.photos:
        time_growth(options.share, options.search)


if __name__ == "__main__":
    main()
