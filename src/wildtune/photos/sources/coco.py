"""Photos listed in a COCO Camera Traps JSON file, the format of the LILA BC data sets.

It is an object with the lists `images` (id, file_name, location, seq_id, datetime), `annotations` (image_id,
category_id) and `categories` (id, name); other keys are passed over.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.sources.camera_traps import TrapPhoto, class_of, create_trap_catalogue
from wildtune.photos.sources.listing import describe_kind, describe_problems, path_below
from wildtune.photos.times import iso_time
from wildtune.wording import counted

_LISTS = ("images", "annotations", "categories")
_UNKNOWN = frozenset({"", "unknown", "none", "nan"})

# Ids are text by the format, numbers in older files.
Id = str | int


def load_coco(path: Path, content: Any, read: bool, labelled: bool = True) -> Catalogue:
    """Load the photos of a COCO Camera Traps file; `content` is its JSON, paths are relative to its folder.

    The camera is the image's `location`. A category `empty` or `blank` is the class `empty`; a photo of several
    categories or of none is left out with a notice, or without `labelled` kept with no label. Raises
    PhotosError with all problems of the file.
    """
    problems: list[str] = []
    lists = _lists(path, content, labelled, problems)
    names = _class_names(lists["categories"], problems)
    untold: list[str] = []
    traps = _trap_photos(path.parent, lists["images"], untold, problems)
    whole_sequence = _add_labels(lists["annotations"], traps, names, problems)
    if problems:
        raise PhotosError(describe_problems(path, problems))
    notices = []
    if untold:
        notices.append(f"{counted(len(untold), 'time')} not understood and left empty, such as '{untold[0]}'.")
    if whole_sequence:
        notices.append(
            f"{counted(len(whole_sequence), 'photo')} labelled as part of a sequence: a frame may show nothing of its "
            "label."
        )
    return create_trap_catalogue(path, traps.values(), read, labelled, notices)


def _lists(path: Path, content: Any, labelled: bool, problems: list[str]) -> dict[str, list[Any]]:
    """Return the three lists of records; raises PhotosError when the file is something else altogether."""
    if isinstance(content, dict) and "detection_categories" in content:
        raise PhotosError(
            f"{path} holds a detector's boxes, not labelled photos.\n"
            f"Give the photos themselves, and this file beside them: --detections {path.name}"
        )
    if not isinstance(content, dict) or not set(_LISTS) & set(content):
        raise PhotosError(
            f"{path} is JSON, but of no kind that lists photos.\n"
            "Expected COCO Camera Traps (an object with images, annotations and categories) or a Camtrap DP "
            f"datapackage.json; found {describe_kind(content)}."
        )
    lists: dict[str, list[Any]] = {}
    for key in _LISTS:
        lists[key] = []
        value = content.get(key)
        if isinstance(value, list):
            lists[key] = value
        elif key in content:
            problems.append(f"{key} must be a list. Got {describe_kind(value)}")
        elif labelled or key == "images":
            problems.append(f"there is no list '{key}' (found: {', '.join(sorted(content))})")
    return lists


def _class_names(categories: list[Any], problems: list[str]) -> dict[Id, str]:
    """Return the class of each category id."""
    names: dict[Id, str] = {}
    for where, identity, category in _identified("categories", categories, "id", problems):
        name = category.get("name")
        if not isinstance(name, str) or not name.strip():
            problems.append(f"{where}: name must be text. Got {_found(category, 'name')}")
        elif identity in names:
            problems.append(f"{where}: the id {identity!r} is that of an earlier category, '{names[identity]}'")
        names.setdefault(identity, class_of(unicodedata.normalize("NFC", str(name).strip())))
    return names


def _trap_photos(root: Path, images: list[Any], untold: list[str], problems: list[str]) -> dict[Id, TrapPhoto]:
    """Return the photo of each image id, without labels; times that are not understood go to `untold`."""
    traps: dict[Id, TrapPhoto] = {}
    places: dict[str, str] = {}
    for where, identity, image in _identified("images", images, "id", problems):
        if identity in traps:
            problems.append(f"{where}: the id {identity!r} is that of an earlier image, {traps[identity].photo.path}")
        name = image.get("file_name")
        below = path_below(root, name) if isinstance(name, str) and name.strip() else None
        if not isinstance(name, str) or not name.strip():
            problems.append(f"{where}: file_name must be text. Got {_found(image, 'file_name')}")
        elif below is None:
            problems.append(f"{where}: file_name must lead to a file below the JSON file's folder. Got '{name}'")
        elif (first := places.setdefault(below, where)) != where:
            problems.append(f"{where}: {below} is listed by {first} already")
        photo = Photo(
            below or "",
            camera=_word(image, "location", where, problems),
            taken=_time(image, where, untold, problems),
        )
        traps.setdefault(identity, TrapPhoto(photo, sequence=_word(image, "seq_id", where, problems)))
    return traps


def _add_labels(
    annotations: list[Any], traps: dict[Id, TrapPhoto], names: dict[Id, str], problems: list[str]
) -> set[Id]:
    """Add the class of each annotation to its photo; return the images labelled as part of a sequence."""
    whole_sequence: set[Id] = set()
    seen: set[Id] = set()
    images_as_text, categories_as_text = {str(i): i for i in traps}, {str(i): i for i in names}
    for where, image, annotation in _identified("annotations", annotations, "image_id", problems):
        if "id" in annotation and (own := _identity(annotation, "id", where, problems)) is not None:
            if own in seen:
                problems.append(f"{where}: the id {own!r} is that of an earlier annotation")
            seen.add(own)
        category = _identity(annotation, "category_id", where, problems)
        if image not in traps:
            problems.append(f"{where}: image_id {image!r} is no image's id{_hint(image, images_as_text)}")
        if category is not None and category not in names:
            problems.append(
                f"{where}: category_id {category!r} is no category's id{_hint(category, categories_as_text)}"
            )
        if image in traps and category in names:
            traps[image].labels.add(names[category])
            if annotation.get("sequence_level_annotation") is True:
                whole_sequence.add(image)
    return whole_sequence


def _identified(
    name: str, records: list[Any], key: str, problems: list[str]
) -> Iterator[tuple[str, Id, dict[str, Any]]]:
    """Yield where each record of a list is, its id and itself; those without an id become problems."""
    for place, record in enumerate(records):
        where = f"{name}[{place}]"
        identity = _identity(record, key, where, problems)
        if identity is not None:
            yield where, identity, record


def _identity(record: Any, key: str, where: str, problems: list[str]) -> Id | None:
    """Return an id of a record, or None and a problem."""
    if not isinstance(record, dict):
        problems.append(f"{where} must be an object. Got {describe_kind(record)}")
        return None
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        problems.append(f"{where}: {key} must be text or a whole number. Got {_found(record, key)}")
        return None
    return value


def _word(image: dict[str, Any], key: str, where: str, problems: list[str]) -> str:
    """Return a name that may be text or a whole number, "" where there is none."""
    value = image.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        problems.append(f"{where}: {key} must be text or a whole number. Got {describe_kind(value)}")
        return ""
    word = unicodedata.normalize("NFC", str(value).strip())
    return "" if word.lower() in _UNKNOWN else word


def _time(image: dict[str, Any], where: str, untold: list[str], problems: list[str]) -> str:
    """Return when an image was taken, "" where that is unknown."""
    value = image.get("datetime")
    if value is None:
        return ""
    if not isinstance(value, str):
        problems.append(f"{where}: datetime must be text, as 2022-12-31 09:52:50. Got {describe_kind(value)}")
        return ""
    time = iso_time(value.strip())
    if time is None and value.strip().lower() not in _UNKNOWN:
        untold.append(value)
    return time or ""


def _found(record: dict[str, Any], key: str) -> str:
    return (
        describe_kind(record[key]) if key in record else f"no {key} (found: {', '.join(sorted(record)) or 'nothing'})"
    )


def _hint(written: Id, known: dict[str, Id]) -> str:
    if str(written) not in known:
        return ""
    kind = "text" if isinstance(written, str) else "a number"
    return f": it is {kind} here, and {describe_kind(known[str(written)])} there"
