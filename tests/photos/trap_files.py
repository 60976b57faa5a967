"""Small data sets of camera traps in the formats of the field, made by hand for the tests."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from photo_files import encode, noise, write

# Path, class, site, burst, time.
PHOTOS = (
    ("north/1.jpg", "Vulpes vulpes", "north", "b1", "2021-05-02T04:10:00"),
    ("north/2.jpg", "Vulpes vulpes", "north", "b1", "2021-05-02T04:10:01"),
    ("south/3.jpg", "Capreolus capreolus", "south", "b2", "2021-05-03T21:00:00"),
    ("south/4.jpg", "empty", "south", "b3", "2021-05-04T12:00:00"),
    ("west/5.jpg", "Capreolus capreolus", "west", "b4", "2021-05-05T06:30:00"),
)


def write_photo_files(root: Path) -> None:
    """Write the photos where the lists below say that they are."""
    for seed, (path, *_) in enumerate(PHOTOS):
        write(root / path, encode(noise(seed)))


def coco() -> dict[str, Any]:
    """Return the photos as COCO Camera Traps."""
    names = ["empty", *sorted({label for _, label, *_ in PHOTOS} - {"empty"})]
    images = [
        {
            "id": f"i{number}",
            "file_name": path,
            "width": 60,
            "height": 40,
            "location": site,
            "seq_id": burst,
            "seq_num_frames": 2,
            "frame_num": 0,
            "datetime": time.replace("T", " "),
        }
        for number, (path, _, site, burst, time) in enumerate(PHOTOS)
    ]
    annotations = [
        {"id": f"a{number}", "image_id": f"i{number}", "category_id": names.index(label)}
        for number, (_, label, *_) in enumerate(PHOTOS)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    info = {"version": "1.0", "description": "made by hand"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, content: Any) -> Path:
    return write(root / "metadata.json", json.dumps(content).encode())


def camtrap_tables() -> dict[str, list[dict[str, str]]]:
    """Return the photos as the tables of a Camtrap DP: two of one event, the others each by itself."""
    sites = sorted({site for _, _, site, *_ in PHOTOS})
    deployments = [
        {"deploymentID": f"d-{site}", "locationID": site, "locationName": "", "latitude": "52.7", "longitude": "23.8"}
        for site in sites
    ]
    media = [
        {
            "mediaID": f"m{number}",
            "deploymentID": f"d-{site}",
            "captureMethod": "activityDetection",
            "timestamp": f"{time}+02:00",
            "filePath": path,
            "filePublic": "true",
            "fileMediatype": "image/jpeg",
        }
        for number, (path, _, site, _, time) in enumerate(PHOTOS)
    ]
    observations = [_observation(number) for number in range(1, len(PHOTOS))]
    return {"deployments": deployments, "media": media, "observations": observations}


def _observation(number: int) -> dict[str, str]:
    _, label, site, burst, time = PHOTOS[number]
    event = burst == "b1"
    return {
        "observationID": f"o{number}",
        "deploymentID": f"d-{site}",
        "mediaID": "" if event else f"m{number}",
        "eventID": burst,
        "eventStart": ("2021-05-02T04:10:00" if event else time) + "+02:00",
        "eventEnd": f"{time}+02:00",
        "observationLevel": "event" if event else "media",
        "observationType": "blank" if label == "empty" else "animal",
        "scientificName": "" if label == "empty" else label,
        "classificationMethod": "human",
    }


def write_camtrap(root: Path, tables: dict[str, list[dict[str, str]]]) -> Path:
    """Write the tables and their datapackage.json, whose path is returned."""
    resources = []
    for name, rows in tables.items():
        root.mkdir(parents=True, exist_ok=True)
        with open(root / f"{name}.csv", "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        resources.append({"name": name, "path": f"{name}.csv", "profile": "tabular-data-resource"})
    profile = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0/camtrap-dp-profile.json"
    package = {"profile": profile, "resources": resources}
    return write(root / "datapackage.json", json.dumps(package).encode())


def write_trap_lists(place: Path, paths: list[str]) -> None:
    """Write photos in class folders below `place` as metadata.json, camtrap/ (with copies) and detections.json."""
    content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": []}
    names = sorted({Path(path).parent.name for path in paths})
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
    tables: dict[str, list[dict[str, str]]] = {"deployments": [], "media": [], "observations": []}
    tables["deployments"] = [{"deploymentID": f"d{site}", "locationID": f"site {site}"} for site in range(5)]
    for number, path in enumerate(paths):
        label, key, deployment = Path(path).parent.name, f"m{number}", f"d{number % 5}"
        content["images"].append({"id": key, "file_name": path, "location": f"site {number % 5}"})
        content["annotations"].append({"id": key, "image_id": key, "category_id": names.index(label)})
        write(place / "camtrap" / path, (place / path).read_bytes())
        time = f"2021-05-02T04:10:{number:02}Z"
        common = {"mediaID": key, "deploymentID": deployment}
        tables["media"].append({**common, "timestamp": time, "filePath": path, "fileMediatype": "image/png"})
        kind = {"observationLevel": "media", "observationType": "animal", "scientificName": label}
        tables["observations"].append({"observationID": f"o{number}", **common, **kind})
    write_coco(place, content)
    write_camtrap(place / "camtrap", tables)
    everywhere = sorted(path.relative_to(place).as_posix() for path in place.glob("*photos/**/*.png"))
    images = [{"file": path, "detections": [detection([0.1, 0.1, 0.8, 0.8])]} for path in everywhere]
    write(place / "detections.json", json.dumps(megadetector(images)).encode())


def megadetector(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return results of MegaDetector, with its three categories."""
    return {
        "info": {"format_version": "1.4", "detector": "md_v5a.0.0.pt"},
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "images": images,
    }


def detection(box: list[float], conf: float = 0.9, category: str = "1") -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": box}
