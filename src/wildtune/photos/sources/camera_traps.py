"""What sources of camera traps share: one label for each photo, and photos of one camera kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.sources.reading import explain_os_error, hash_photos
from wildtune.wording import counted

# The class of photos that show no animal, whatever the source calls it.
EMPTY = "empty"
_EMPTY_NAMES = frozenset({"empty", "blank"})
_LEAST_CAMERAS = 3  # one for each side of the split
_TORN = "may be on two sides of the split"


@dataclass(slots=True)
class TrapPhoto:
    """A photo as its source lists it, before it has one label.

    photo     path, camera, time, and perhaps an error; no label yet
    labels    every class that the source says it shows
    sequence  burst or event it belongs to; "" where unknown
    """

    photo: Photo
    labels: set[str] = field(default_factory=set)
    sequence: str = ""


def class_of(name: str) -> str:
    """Return the class that a source's category stands for: its name, and `empty` for `Empty`, `blank` and so on."""
    return EMPTY if name.lower() in _EMPTY_NAMES else name


def create_trap_catalogue(
    path: Path, found: Iterable[TrapPhoto], read: bool, labelled: bool, notices: Iterable[str] = ()
) -> Catalogue:
    """Return the catalogue of the photos that the file `path` lists, relative to its folder.

    A photo with several labels, or with none, has no right answer: it is left out where `labelled`, else kept
    with the label "". Each is counted in a notice. `group_by_camera` gives the photos their groups, once it is
    known which of them are left. Raises PhotosError when not one of the files is there.
    """
    found = list(found)
    several = [trap for trap in found if len(trap.labels) > 1]
    unlabelled = [trap for trap in found if not trap.labels]
    kept = [trap for trap in found if len(trap.labels) == 1] if labelled else found
    fate = "left out" if labelled else "taken without a label"
    said = list(notices)
    if several:
        pairs = Counter(" and ".join(sorted(trap.labels)) for trap in several)
        common = ", ".join(f"{names} ({count})" for names, count in pairs.most_common(3))
        said.append(f"{counted(len(several), 'photo')} with several labels {fate}, most often {common}.")
    if unlabelled:
        said.append(f"{counted(len(unlabelled), 'photo')} with no label {fate}, such as {unlabelled[0].photo.path}.")
    labels = [next(iter(trap.labels)) if len(trap.labels) == 1 else "" for trap in kept]
    if empty := labels.count(EMPTY):
        said.append(f"{counted(empty, 'photo')} without an animal, in the class '{EMPTY}'.")
    if found and not any(trap.photo.camera or trap.sequence for trap in found):
        said.append(f"No camera and no sequence is known: frames of one burst {_TORN}.")
    photos = [
        replace(trap.photo, label=label, sequence=trap.sequence) for trap, label in zip(kept, labels, strict=True)
    ]
    photos = hash_photos(path.parent, photos) if read else photos
    if read and photos and all(photo.error == explain_os_error(FileNotFoundError()) for photo in photos):
        raise PhotosError(
            f"None of the {len(photos)} photos that {path} lists is there, such as {photos[0].path}.\n"
            f"Their paths are relative to {path.parent}: put {path.name} into the folder that they start from."
        )
    return create_catalogue(path.parent, photos, said)


def group_by_camera(catalogue: Catalogue) -> Catalogue:
    """Return the catalogue with the groups of its photos filled in, and notices about how.

    Photos of one camera share their background, light and often the animal, so that a split within a camera
    measures how well that camera is known, not how well the animals are. The group is therefore the camera.
    Frames of one sequence always stay together: those without a camera go with the others', and cameras that
    share a sequence are one group. Only cameras of photos that could be read count. Where fewer than three
    groups of cameras are left there is none for each side: then, and for a photo whose camera is unknown, the
    group is the sequence; a photo without either keeps the group it has.
    """
    there = [photo for photo in catalogue.photos if not photo.error]
    if not any(photo.camera or photo.sequence for photo in catalogue.photos):
        return catalogue
    places = _join_cameras(there)
    joined = set(places.values())
    apart = len(joined) >= _LEAST_CAMERAS
    place_of = {p.sequence: places[p.camera] for p in there if p.sequence and p.camera} if apart else {}
    photos, alone = [], {}
    for photo in catalogue.photos:
        place = place_of.get(photo.sequence) or (places.get(photo.camera) if apart else "")
        group = f"camera {place}" if place else f"sequence {photo.sequence}" if photo.sequence else ""
        photos.append(replace(photo, group=group or photo.group))
        if not group and not photo.error:
            alone[photo.file_name] = photo
    notices = [_about_cameras(len(places), len(joined))] if places else []
    if alone:
        count, first = counted(len(alone), "photo"), min(alone)
        known = any(photo.sequence for photo in there)
        if apart:
            notices.append(f"{count} with neither camera nor sequence, such as {first}: frames of one burst {_TORN}.")
        elif known:
            notices.append(f"{count} without a sequence, such as {first}: frames of one burst {_TORN}.")
        else:
            notices.append(f"No {'' if places else 'camera and no '}sequence is known: frames of one burst {_TORN}.")
    return create_catalogue(catalogue.root, photos, [*catalogue.notices, *notices])


def _join_cameras(photos: Iterable[Photo]) -> dict[str, str]:
    """Return for each camera the first name of those that share sequences with it, directly or by way of others."""
    leader: dict[str, str] = {}

    def lead(camera: str) -> str:
        while leader[camera] != camera:
            leader[camera] = leader[leader[camera]]
            camera = leader[camera]
        return camera

    of_sequence: dict[str, str] = {}
    for photo in photos:
        if photo.camera:
            leader.setdefault(photo.camera, photo.camera)
            other = of_sequence.setdefault(photo.sequence, photo.camera) if photo.sequence else photo.camera
            first, second = sorted((lead(photo.camera), lead(other)))
            leader[second] = first
    return {camera: lead(camera) for camera in leader}


def _about_cameras(cameras: int, joined: int) -> str:
    """Say in a notice what became of so many cameras, of which so many are left once those of one sequence are one."""
    shared = f", {joined} once those with a sequence in common are taken as one" if joined < cameras else ""
    if joined >= _LEAST_CAMERAS:
        some = f"{cameras}{shared and shared + ','}"
        return f"Photos are kept together by camera: none of the {some} is on two sides of the split."
    return (
        f"{counted(cameras, 'camera')}{shared}, too few to keep apart: photos are kept together by sequence where it "
        "is known, and the scores are those of known cameras, not of a new one."
    )
