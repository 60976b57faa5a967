"""Where photos come from: class folders, CSV, TFRecord, COCO Camera Traps, Camtrap DP; the same Catalogue from each."""

from __future__ import annotations

import os
from pathlib import Path

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue
from wildtune.photos.sources.camera_traps import group_by_camera
from wildtune.photos.sources.camtrap_dp import PACKAGE_NAME, is_camtrap_dp, load_camtrap_dp
from wildtune.photos.sources.coco import load_coco
from wildtune.photos.sources.detections import Detections, Results, crop_animals, read_results
from wildtune.photos.sources.folders import (
    describe_missing,
    load_class_folders,
    load_single_file,
    load_unsorted_folder,
    visible_entries,
)
from wildtune.photos.sources.listing import read_json
from wildtune.photos.sources.table import TABLE_SUFFIXES, load_table
from wildtune.photos.sources.tfrecord import is_shard_name, load_shards

__all__ = ["Detections", "list_photos", "load_photos", "require_source"]

_LIST_SUFFIXES = TABLE_SUFFIXES | {".json"}

_LAYOUTS = (
    "Expected one of:\n"
    "  - a folder with one sub-folder per class: photos/bear/1.jpg, photos/deer/2.jpg\n"
    "  - a CSV file with the columns path and label (group, split, camera and taken are optional)\n"
    "  - TFRecord shards, or a folder of them\n"
    "  - a COCO Camera Traps JSON file, or a Camtrap DP folder or its datapackage.json"
)


def require_source(source: str | Path) -> Path:
    """Return the absolute path of a source that is there to be read; else raise PhotosError with the nearest name."""
    path = files.user_path(source).absolute()
    try:
        if os.path.isdir(path):
            visible_entries(path)
            return path
        if os.path.isfile(path):
            return path
        missing = describe_missing(path)
    except OSError as error:
        raise PhotosError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error
    raise PhotosError(f"There is no folder or file '{source}': {missing}")


def load_photos(source: str | Path, read: bool = True, detections: Detections | None = None) -> Catalogue:
    """Load labelled photos into a Catalogue.

    `source` is a folder of class folders, a CSV file, TFRecord shards, a COCO Camera Traps JSON file or a
    Camtrap DP. With `read` every photo's bytes are read once for its SHA-256; a photo that cannot be read stays
    in the catalogue with `error` set. Without it `sha256` stays "" and nothing but names is looked at. With
    `detections` the photos become crops of their animals, as `crop_animals` says; their sizes are read then.
    Where no photo has a group, `group_by_camera` gives those of one camera or sequence one.
    Raises PhotosError when the source is missing, of no known kind, contradicts itself or holds no photos.
    """
    path = require_source(source)
    results = read_results(detections) if detections else None
    if _is_package(path):
        catalogue = _load_list(path / PACKAGE_NAME, read)
    elif path.is_dir():
        shards = [entry for entry in visible_entries(path) if is_shard_name(entry.name) and os.path.isfile(entry)]
        catalogue = load_class_folders(path, read)
        if not catalogue.photos and shards:
            catalogue = load_shards(path, shards, read)
        if not catalogue.photos:
            raise PhotosError(_nothing_found(path, catalogue))
    elif is_shard_name(path.name):
        catalogue = load_shards(path.parent, [path], read)
    elif path.suffix.lower() in _LIST_SUFFIXES:
        catalogue = _load_list(path, read)
    else:
        raise PhotosError(f"{path} is a file of a kind that holds no labelled photos.\n{_LAYOUTS}")
    if not catalogue.photos:
        said = "".join(f"\n  - {notice}" for notice in catalogue.notices)
        raise PhotosError(f"{path} lists no photos with a label.{said}\n{_LAYOUTS}")
    return _finish(catalogue, results)


def list_photos(source: str | Path, read: bool = True, detections: Detections | None = None) -> Catalogue:
    """List photos for prediction: those below a folder, one image file, or those of any source of `load_photos`.

    Below a folder every file counts that is not hidden and not plainly of another sort by its suffix, so that
    damaged and oddly named photos are reported rather than lost. `label` is the first folder of the path, ""
    for photos directly in the folder, and "" where a list or a shard has none. `read` and `detections` are as
    in `load_photos`. Raises PhotosError when nothing is there.
    """
    path = require_source(source)
    results = read_results(detections) if detections else None
    if _is_package(path):
        catalogue = _load_list(path / PACKAGE_NAME, read, labelled=False)
    elif path.is_dir():
        shards = [entry for entry in visible_entries(path) if is_shard_name(entry.name) and os.path.isfile(entry)]
        catalogue = load_unsorted_folder(path, read)
        if not catalogue.photos and shards:
            catalogue = load_shards(path, shards, read, labelled=False)
    elif is_shard_name(path.name):
        catalogue = load_shards(path.parent, [path], read, labelled=False)
    elif path.suffix.lower() in _LIST_SUFFIXES:
        catalogue = _load_list(path, read, labelled=False)
    else:
        catalogue = load_single_file(path, read)
    if not catalogue.photos:
        raise PhotosError(f"{path} holds no photos.\nGive a folder with photos in it, at any depth, or one photo.")
    return _finish(catalogue, results)


def _finish(catalogue: Catalogue, results: Results | None) -> Catalogue:
    """Cut out the animals where a detector's results are given, then group by camera where no photo has a group."""
    grouped = any(photo.group for photo in catalogue.photos)
    cropped = crop_animals(catalogue, results) if results else catalogue
    return cropped if grouped else group_by_camera(cropped)


def _is_package(path: Path) -> bool:
    return path.is_dir() and (path / PACKAGE_NAME).is_file()


def _load_list(path: Path, read: bool, labelled: bool = True) -> Catalogue:
    """Load the photos that a CSV or JSON file lists, whichever it is."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        return load_table(path, read, labelled)
    content = read_json(path)
    load = load_camtrap_dp if is_camtrap_dp(content) or path.name == PACKAGE_NAME else load_coco
    return load(path, content, read, labelled)


def _nothing_found(path: Path, catalogue: Catalogue) -> str:
    """Say why a folder gave no labelled photos, and what it holds instead."""
    entries = visible_entries(path)
    folders = sum(os.path.isdir(entry) for entry in entries)
    tables = [entry.name for entry in entries if entry.suffix.lower() in _LIST_SUFFIXES]
    found = "\n".join(f"  - {notice}" for notice in catalogue.notices)
    held = f"It holds {folders} folders and {len(entries) - folders} files" + (f":\n{found}" if found else ".")
    hint = f"\nIt does hold {tables[0]}: if that lists the photos, give {path / tables[0]}." if tables else ""
    return f"{path} holds no photos in class folders.\n{held}\n{_LAYOUTS}{hint}"
