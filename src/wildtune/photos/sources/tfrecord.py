"""Photos in TFRecord shards of tf.train.Example, read without TensorFlow.

A record is its length (u64), the masked CRC-32C of that (u32), the data, and the masked CRC-32C of the data
(u32), all little-endian.
"""

from __future__ import annotations

import gzip
import re
import shutil
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from wildtune import files
from wildtune.errors import PhotosError
from wildtune.photos.catalogue import SPLITS, Catalogue, Photo, create_catalogue
from wildtune.photos.sources.folders import SPLIT_OF_NAME
from wildtune.photos.sources.reading import explain_os_error, hash_photos

_SHARD_NAME = re.compile(r"\.(tfrecords?|tfrec|record)(-\d+-of-\d+)?(\.gz|\.gzip)?$", re.IGNORECASE)
_CLASS_FILES = ("labels.txt", "classes.txt", "label_map.txt")
_IMAGE_KEYS = ("image/encoded", "image")
_LABEL_KEYS = ("image/class/text", "image/label", "image/class/label", "label")
_LENGTH = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class _Record:
    """One verified record: its data and where they start in the shard."""

    index: int
    start: int
    data: bytes


def is_shard_name(name: str) -> bool:
    """Say whether a file name is that of a TFRecord shard: `x.tfrecord`, `x.tfrec-00000-of-00010.gz`."""
    return _SHARD_NAME.search(name) is not None


def load_shards(root: Path, shards: Sequence[Path], read: bool, labelled: bool = True) -> Catalogue:
    """Load the photos of TFRecord shards that lie in the folder `root`; every checksum is verified.

    Photos are named by `image/filename` where it is there and unlike all others, else `SHARD#INDEX`. Integer
    labels are named by labels.txt, classes.txt or label_map.txt in `root`. `labelled` demands a label in
    every record. Raises PhotosError naming the shard and the record that is damaged or lacks something.
    """
    class_names = _read_class_names(root)
    photos: list[Photo] = []
    names: list[str] = []
    unnamed: set[int] = set()
    for shard in sorted(shards):
        plain = _unpacked(shard)
        container = plain.relative_to(root).as_posix() if plain.is_relative_to(root) else plain.as_posix()
        for record in _read_records(plain, shard.name):
            where = f"record {record.index} of {shard}"
            features = _parse_features(record.data, where)
            image = _image_bytes(features, where)
            label = _label(features, class_names, unnamed, where)
            if labelled and not label:
                raise PhotosError(
                    f"There is no label in {where}.\nExpected one of the features {', '.join(_LABEL_KEYS)}; "
                    f"found {', '.join(sorted(features)) or 'none'}."
                )
            names.append(_text(features, "image/filename"))
            photos.append(
                Photo(
                    path=f"{shard.name}#{record.index}",
                    label=label,
                    group=_text(features, "image/group"),
                    split=_split(features, where),
                    container=container,
                    offset=record.start + record.data.find(image),
                    length=len(image),
                )
            )
    photos = _with_names(photos, names)
    notices = []
    if class_names and unnamed:
        notices.append(f"Labels without a name in the class file stay numbers: {sorted(unnamed)[:10]}.")
    return create_catalogue(root, hash_photos(root, photos) if read else photos, notices)


def _with_names(photos: list[Photo], names: list[str]) -> list[Photo]:
    """Name photos by their file names, except where several have the same."""
    counts = Counter(names)
    return [
        replace(photo, path=name) if name and counts[name] == 1 else photo
        for photo, name in zip(photos, names, strict=True)
    ]


def _unpacked(shard: Path) -> Path:
    """Return the shard itself, or for a gzip file its content in the cache, unpacked once."""
    try:
        with open(shard, "rb") as handle:
            if handle.read(2) != b"\x1f\x8b":
                return shard
        plain = (files.cache_folder("shards") / f"{files.sha256_file(shard)}.tfrecord").absolute()
        if plain.is_file():
            return plain
        with (
            files.replacing(plain) as temporary,
            gzip.open(shard, "rb") as packed,
            open(temporary, "wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
        return plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PhotosError(
            f"{shard} is a damaged or truncated gzip file: {error}.\nCopy or download it again."
        ) from error
    except OSError as error:
        raise PhotosError(f"{shard} cannot be read or unpacked: {explain_os_error(error)}.") from error


def _read_records(path: Path, name: str) -> Iterator[_Record]:
    """Yield every record of a shard; raises PhotosError at the first whose checksums or length are wrong."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        index = start = 0
        while start < size:
            head = handle.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                raise _damaged(path, name, index, "the file ends within it")
            length, checksum = _LENGTH.unpack(head)
            if _masked_crc(head[:8]) != checksum:
                reason = "the checksum of its length is wrong"
                raise _damaged(path, name, index, reason if index else f"{reason}, so this may be no TFRecord file")
            start += _LENGTH.size
            if start + length + _CHECKSUM.size > size:
                raise _damaged(path, name, index, "the file ends within it")
            data = handle.read(length)
            if _masked_crc(data) != _CHECKSUM.unpack(handle.read(_CHECKSUM.size))[0]:
                raise _damaged(path, name, index, "the checksum of its data is wrong")
            yield _Record(index, start, data)
            start += length + _CHECKSUM.size
            index += 1


def _damaged(path: Path, name: str, index: int, reason: str) -> PhotosError:
    place = path.parent if path.name == name else path
    if path.name != name:  # our own unpacked copy: make it again the next time
        path.unlink(missing_ok=True)
    return PhotosError(f"Shard {name} is damaged at record {index}: {reason} ({place}).\nCopy or download it again.")


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _create_example_class() -> Any:
    """Return a message class with the fields of tf.train.Example, described here to do without TensorFlow."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="wildtune/example.proto", package="wildtune", syntax="proto3")

    def add_message(name: str, *fields: tuple[str, int, int, str, bool]) -> Any:
        described = file.message_type.add(name=name)
        for number, (field_name, kind, label, type_name, in_oneof) in enumerate(fields, start=1):
            added = described.field.add(name=field_name, number=number, type=kind, label=label)
            if type_name:
                added.type_name = f".wildtune.{type_name}"
            if in_oneof:
                added.oneof_index = 0
        return described

    one, many = field_type.LABEL_OPTIONAL, field_type.LABEL_REPEATED
    add_message("BytesList", ("value", field_type.TYPE_BYTES, many, "", False))
    add_message("FloatList", ("value", field_type.TYPE_FLOAT, many, "", False))
    add_message("Int64List", ("value", field_type.TYPE_INT64, many, "", False))
    kinds = [(f"{kind.lower()}_list", field_type.TYPE_MESSAGE, one, f"{kind}List", True) for kind in _KINDS]
    add_message("Feature", *kinds).oneof_decl.add(name="kind")
    features = add_message("Features", ("feature", field_type.TYPE_MESSAGE, many, "Features.Entry", False))
    entry = features.nested_type.add(name="Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field_type.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=field_type.TYPE_MESSAGE, label=one, type_name=".wildtune.Feature")
    # protobuf wants a map's entry to be named after its field.
    entry.name = "FeatureEntry"
    features.field[0].type_name = ".wildtune.Features.FeatureEntry"
    add_message("Example", ("features", field_type.TYPE_MESSAGE, one, "Features", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("wildtune.Example"))


_KINDS = ("Bytes", "Float", "Int64")
_Example = _create_example_class()


def _parse_features(data: bytes, where: str) -> dict[str, list[Any]]:
    """Return the features of a serialized Example as lists of bytes, floats or ints."""
    try:
        example = _Example.FromString(data)
    except (message.DecodeError, UnicodeDecodeError) as error:
        raise PhotosError(
            f"There is no tf.train.Example in {where}.\nExpected Examples with image/encoded and a label."
        ) from error
    features = {}
    for key, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[key] = list(getattr(feature, kind).value) if kind else []
    return features


def _image_bytes(features: dict[str, list[Any]], where: str) -> bytes:
    for key in _IMAGE_KEYS:
        values = features.get(key, [])
        if len(values) == 1 and isinstance(values[0], bytes):
            return values[0]
    raise PhotosError(
        f"There is no encoded image in {where}.\nExpected the bytes of a JPEG or other image in the feature "
        f"image/encoded (or image); found {', '.join(sorted(features)) or 'none'}."
    )


def _text(features: dict[str, list[Any]], key: str) -> str:
    values = features.get(key, [])
    return _decoded(values[0]) if values and isinstance(values[0], bytes) else ""


def _decoded(value: bytes) -> str:
    return unicodedata.normalize("NFC", value.decode("utf-8", "replace").strip())


def _split(features: dict[str, list[Any]], where: str) -> str:
    text = _text(features, "image/split").lower()
    side = SPLIT_OF_NAME.get(text, "")
    if text and not side:
        raise PhotosError(f"image/split must be {', '.join(SPLITS)} or empty. Got '{text}' in {where}.")
    return side


def _label(features: dict[str, list[Any]], names: dict[int, str], unnamed: set[int], where: str) -> str:
    """Return the class name of a record, "" where it has no label."""
    for key in _LABEL_KEYS:
        values = [value for value in features.get(key, []) if value != b""]
        if not values:
            continue
        if isinstance(values[0], bytes):
            return _decoded(values[0])
        number = int(values[0])
        if len(values) > 1:
            number = values.index(max(values))
            if max(values) <= 0 or values.count(max(values)) > 1:
                raise PhotosError(f"{key} must name one class. Got {values[:10]} in {where}.")
        elif number != values[0] or number < 0:
            raise PhotosError(f"{key} must be a whole number from 0. Got {values[0]} in {where}.")
        if number not in names:
            unnamed.add(number)
        return names.get(number, str(number))
    return ""


def _read_class_names(root: Path) -> dict[int, str]:
    """Return the names of integer labels from the class file beside the shards; empty where there is none."""
    path = next((root / name for name in _CLASS_FILES if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        lines = [line.strip() for line in path.read_bytes().decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise PhotosError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    numbered = [re.fullmatch(r"(\d+)(?:\s*[:,]\s*|\s+)(.+)", line) for line in lines]
    if lines and all(numbered):
        names = {int(match[1]): unicodedata.normalize("NFC", match[2].strip()) for match in numbered if match}
    else:
        names = {index: unicodedata.normalize("NFC", line) for index, line in enumerate(lines)}
    if len(names) < len(lines) or len(set(names.values())) < len(lines):
        raise PhotosError(f"{path} must name each class once, by one number.\nExpected lines `name` or `number:name`.")
    return names
