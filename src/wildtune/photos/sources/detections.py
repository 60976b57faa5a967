"""Crops instead of whole photos: the animals' boxes that MegaDetector found, read from its results (JSON, 1.x)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wildtune import files
from wildtune.errors import CommandError, PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue, crop_sha256
from wildtune.photos.decode import Box, DecodeError, quiet_warnings, read_size
from wildtune.photos.sources.folders import describe_missing
from wildtune.photos.sources.listing import describe_kind, describe_problems, normal_path, read_json
from wildtune.photos.threads import map_in_threads
from wildtune.wording import counted

_ANIMAL = "animal"
_SLACK = 0.01  # a box may lie outside by rounding
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Detections:
    """Which boxes to cut out of the photos.

    path       MegaDetector's results, a JSON file
    threshold  least confidence, 0-1, of a box that is used
    margin     what is added on each side of a box, as a share of its longer side
    """

    path: str | Path
    threshold: float = 0.2
    margin: float = 0.1

    def __post_init__(self) -> None:
        """Raise CommandError for numbers that make no sense."""
        if not 0 <= self.threshold <= 1:
            raise CommandError(f"The threshold of detections must be from 0 to 1. Got {self.threshold}.")
        if not 0 <= self.margin <= 10:
            raise CommandError(f"The margin of detections must be from 0 to 10. Got {self.margin}.")


@dataclass(frozen=True, slots=True)
class _Detected:
    """What the detector says of one file: animals above the threshold by their place from 1, or why it failed."""

    boxes: tuple[tuple[int, Box], ...]
    failure: str


@dataclass(frozen=True, slots=True)
class Results:
    """What the detector says, read once: `detections`, their file by its absolute path, and each file's boxes."""

    detections: Detections
    path: Path
    by_file: dict[str, _Detected]


def read_results(detections: Detections) -> Results:
    """Read the detector's results. Raises PhotosError when they are not there, or with all problems of the file."""
    path = files.user_path(detections.path).absolute()
    try:
        missing = "" if os.path.exists(path) else describe_missing(path)
    except OSError as error:
        raise PhotosError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error
    if missing:
        raise PhotosError(f"There is no file of detections '{detections.path}': {missing}\nCheck the path.")
    if os.path.isdir(path):
        raise PhotosError(f"{path} is a folder, not a file of detections.\nGive the JSON file that the detector wrote.")
    return Results(detections, path, _read_detections(path, detections.threshold))


def crop_animals(catalogue: Catalogue, results: Results) -> Catalogue:
    """Return a catalogue with a crop for each animal's box in place of each photo.

    A crop's path is the photo's with `#` and the place of the box among the photo's detections, from 1. Crops
    of one photo are one group: the photo's own, or else the photo's SHA-256 (its path where that is unknown).
    Photos without a box above the threshold, and photos the detector has not seen, are left out with a notice;
    one that the detector failed on is kept with `error` set, one that cannot be read stays as it is. A photo's
    file is named as in the catalogue, relative to the results' folder, or absolute. Raises PhotosError when the
    results speak of none of the photos, and when no animal and no problem is left.
    """
    detections, path, found = results.detections, results.path, results.by_file
    seen = [_detected(found, catalogue.root, photo) for photo in catalogue.photos]
    _check_some_seen(path, found, catalogue.photos, seen)
    photos: list[Photo] = []
    cropped: list[tuple[Photo, _Detected]] = []
    empty, unseen, failed = [], [], 0
    for photo, detected in zip(catalogue.photos, seen, strict=True):
        if photo.error:
            photos.append(photo)
        elif detected is None:
            unseen.append(photo.path)
        elif detected.failure:
            photos.append(replace(photo, error=f"the detector failed on it: {detected.failure}"))
            failed += 1
        elif not detected.boxes:
            empty.append(photo.path)
        else:
            cropped.append((photo, detected))
    with quiet_warnings():
        for found_crops in map_in_threads(lambda pair: _crops(catalogue, *pair, detections.margin), cropped, _THREADS):
            photos += found_crops
    crops = [photo for photo in photos if photo.box]
    whole = len({photo.file_name for photo in crops})
    notices = [f"{counted(len(crops), 'crop')} of animals from {counted(whole, 'photo')}, by {path.name}."]
    if empty:
        notices.append(
            f"{counted(len(empty), 'photo')} without an animal of confidence {detections.threshold:g} or more left out "
            f"as empty, such as {empty[0]}."
        )
    if unseen:
        notices.append(f"{counted(len(unseen), 'photo')} not in {path.name} left out, such as {unseen[0]}.")
    lost = sorted(set(catalogue.class_names) - {photo.label for photo in photos})
    if lost:
        notices.append(f"Classes of which no photo is left: {', '.join(lost)}.")
    if failed:
        notices.append(f"{counted(failed, 'photo')} that the detector failed on set aside.")
    if not photos:
        raise PhotosError(
            f"No photo has an animal of confidence {detections.threshold:g} or more in {path}.\nLower the threshold."
        )
    return create_catalogue(catalogue.root, photos, [*catalogue.notices, *notices])


def widen_box(box: Box, width: int, height: int, margin: float) -> Box:
    """Return a square around a box with a margin, within a photo of `width` by `height` pixels.

    Each side is the box's longer side and `margin` of it on both ends. At the photo's edge the square moves
    inwards; it is no square only where it would be larger than the photo. Shares have six decimals.
    """
    x, y, across, down = box
    side = max(across * width, down * height, 1.0) * (1 + 2 * margin)
    new_across, new_down = min(side / width, 1.0), min(side / height, 1.0)
    left = min(max(x + across / 2 - new_across / 2, 0.0), 1.0 - new_across)
    top = min(max(y + down / 2 - new_down / 2, 0.0), 1.0 - new_down)
    return round(left, 6), round(top, 6), round(new_across, 6), round(new_down, 6)


def _crops(catalogue: Catalogue, photo: Photo, detected: _Detected, margin: float) -> list[Photo]:
    """Return the crops of a photo, or the photo itself where it cannot be read: the audit will say why."""
    try:
        width, height = read_size(catalogue.read_bytes(photo))
    except (DecodeError, OSError, ValueError):
        return [photo]
    crops = []
    for place, found in detected.boxes:
        box = widen_box(found, width, height, margin)
        crops.append(
            replace(
                photo,
                path=f"{photo.path}#{place}",
                sha256=crop_sha256(photo.sha256, box) if photo.sha256 else "",
                group=photo.group or photo.sha256 or photo.path,
                container=photo.container or photo.path,
                box=box,
            )
        )
    return crops


def _read_detections(path: Path, threshold: float) -> dict[str, _Detected]:
    """Return what the detector says by file, named as written and by its absolute path."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise PhotosError(
            f"{path} holds no results of MegaDetector.\n"
            f"Expected an object with info, detection_categories and the list images; found {describe_kind(content)}."
        )
    problems: list[str] = []
    animals = _animal_categories(content, problems)
    detected: dict[str, _Detected] = {}
    places: dict[str, int] = {}
    for place, image in enumerate(content["images"]):
        where = f"images[{place}]"
        name = image.get("file") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name or "\0" in name:
            problems.append(f"{where} must be an object whose file is text. Got {describe_kind(image)}")
            continue
        file = normal_path(path.parent, name)
        if (first := places.setdefault(file, place)) != place:
            problems.append(f"{where}: {name} is in images[{first}] already")
        failure = image.get("failure")
        if failure is not None and not isinstance(failure, str):
            problems.append(f"{where}: failure must be text or null. Got {describe_kind(failure)}")
        boxes = () if failure else _boxes(image, where, animals, threshold, problems)
        detected[file] = _Detected(boxes, str(failure or ""))
    if problems:
        raise PhotosError(describe_problems(path, problems))
    return detected | {os.path.normpath(path.parent / file): found for file, found in detected.items()}


def _animal_categories(content: dict[str, Any], problems: list[str]) -> set[str]:
    """Return the ids of the detection categories that are animals."""
    info, names = content.get("info"), content.get("detection_categories")
    version = info.get("format_version", "1") if isinstance(info, dict) else "1"
    if str(version).split(".")[0] != "1":
        problems.append(f"info: format_version must be 1.x. Got {describe_kind(version)}")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        problems.append('detection_categories must be an object of names by id, as {"1": "animal"}')
        return set()
    animals = {identity for identity, name in names.items() if name.lower() == _ANIMAL}
    if not animals:
        problems.append(f"no detection category is named '{_ANIMAL}' (found: {', '.join(names.values()) or 'none'})")
    return animals


def _boxes(
    image: dict[str, Any], where: str, animals: set[str], threshold: float, problems: list[str]
) -> tuple[tuple[int, Box], ...]:
    """Return the boxes of the animals at or above the threshold, each with its place among the detections, from 1."""
    found = image.get("detections")
    if not isinstance(found, list):
        problems.append(f"{where}: detections must be a list where there is no failure. Got {describe_kind(found)}")
        return ()
    boxes: list[tuple[int, Box]] = []
    for place, detection in enumerate(found):
        here = f"{where}.detections[{place}]"
        if not isinstance(detection, dict):
            problems.append(f"{here} must be an object. Got {describe_kind(detection)}")
            continue
        category: Any = detection.get("category")
        confidence: Any = detection.get("conf")
        shares: Any = detection.get("bbox")
        before = len(problems)
        if not isinstance(category, str):
            problems.append(f'{here}: category must be text, as "1". Got {describe_kind(category)}')
        if not _is_number(confidence) or not 0 <= confidence <= 1:
            problems.append(f"{here}: conf must be a number from 0 to 1. Got {describe_kind(confidence)}")
        if not _is_box(shares):
            got = shares if isinstance(shares, list) else describe_kind(shares)
            problems.append(f"{here}: bbox must be [x_min, y_min, width, height] as shares from 0 to 1. Got {got}")
        if len(problems) == before and category in animals and confidence >= threshold:
            boxes.append((place + 1, (shares[0], shares[1], shares[2], shares[3])))
    return tuple(boxes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(shares: Any) -> bool:
    if not isinstance(shares, list) or len(shares) != 4 or not all(map(_is_number, shares)):
        return False
    x, y, width, height = shares
    inside = x + width <= 1 + _SLACK and y + height <= 1 + _SLACK
    return bool(inside and min(x, y) >= -_SLACK and min(width, height) >= 0)


def _detected(found: dict[str, _Detected], root: Path, photo: Photo) -> _Detected | None:
    return found.get(photo.path) or found.get(os.path.normpath(root / photo.path))


def _check_some_seen(
    path: Path, found: dict[str, _Detected], photos: Iterable[Photo], seen: list[_Detected | None]
) -> None:
    if any(seen):
        return
    theirs, ours = next(iter(found), "none"), next((photo.path for photo in photos), "none")
    raise PhotosError(
        f"None of the photos is in {path}: it names files as {theirs}, the photos are named as {ours}.\n"
        "Run the detector in the photos' folder with relative file names, or put its results into the folder that "
        "they start from."
    )
