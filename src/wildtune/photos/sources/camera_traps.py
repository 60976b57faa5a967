"""What sources of camera traps share: one label for each photo, and photos of one camera kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.sources.reading import explain_os_error, hash_photos

# The class of photos that show no animal, whatever the source calls it.
EMPTY = "empty"
_EMPTY_NAMES = frozenset({"empty", "blank"})
_LEAST_CAMERAS = 3  # one for each side of the split


@dataclass(slots=True)
class TrapPhoto:
    """A photo as its source lists it, before it has one label and a group.

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
    with the label "". Each is counted in a notice. Raises PhotosError when not one of the files is there.
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
        said.append(f"{_count(several)} with several labels {fate}, most often {common}.")
    if unlabelled:
        said.append(f"{_count(unlabelled)} with no label {fate}, such as {unlabelled[0].photo.path}.")
    labels = [next(iter(trap.labels)) if len(trap.labels) == 1 else "" for trap in kept]
    if empty := labels.count(EMPTY):
        said.append(f"{empty} photos without an animal are the class '{EMPTY}'.")
    photos = [replace(trap.photo, label=label) for trap, label in zip(kept, labels, strict=True)]
    photos, about_groups = group_by_camera(photos, [trap.sequence for trap in kept])
    photos = hash_photos(path.parent, photos) if read else photos
    if read and photos and all(photo.error == explain_os_error(FileNotFoundError()) for photo in photos):
        raise PhotosError(
            f"None of the {len(photos)} photos that {path} lists is there, such as {photos[0].path}.\n"
            f"Their paths are relative to {path.parent}: put {path.name} into the folder that they start from."
        )
    return create_catalogue(path.parent, photos, [*said, *about_groups])


def group_by_camera(photos: Sequence[Photo], sequences: Sequence[str]) -> tuple[list[Photo], list[str]]:
    """Return the photos with their group filled in, and notices about how.

    Photos of one camera share their background, light and often the animal, so that a split within a camera
    measures how well that camera is known, not how well the animals are. The group is therefore the camera.
    With fewer than three cameras there is none for each side: then, and for a photo whose camera is unknown,
    the group is the sequence (`sequences`, one for each photo, "" where there is none).
    """
    cameras = {photo.camera for photo in photos if photo.camera}
    apart = len(cameras) >= _LEAST_CAMERAS
    grouped = []
    for photo, sequence in zip(photos, sequences, strict=True):
        group = f"sequence {sequence}" if sequence else ""
        grouped.append(replace(photo, group=f"camera {photo.camera}" if apart and photo.camera else group))
    notices = []
    if apart:
        notices.append(f"Photos are kept together by camera: none of the {len(cameras)} is on two sides of the split.")
    elif cameras:
        notices.append(
            f"{len(cameras)} camera{'s' if len(cameras) > 1 else ''}, too few to keep apart: photos are kept together "
            "by sequence where it is known, and the scores are those of known cameras, not of a new one."
        )
    alone = [photo for photo in grouped if not photo.group]
    if alone and len(alone) < len(grouped):
        notices.append(f"{len(alone)} photos have neither camera nor sequence, such as {alone[0].path}.")
    elif alone and not cameras and photos:
        notices.append("No camera and no sequence is known: frames of one burst may be on two sides of the split.")
    return grouped, notices


def _count(traps: Sequence[TrapPhoto]) -> str:
    return f"{len(traps)} photo{'' if len(traps) == 1 else 's'}"
