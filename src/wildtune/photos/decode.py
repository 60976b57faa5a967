"""One way from encoded bytes to pixels, shared by the audit, training, prediction and the store."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from wildtune.language import recorded
from wildtune.photos.times import iso_time

# The suffixes a photo may have, and the format that its content should then be in.
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
MAX_PIXELS = 180_000_000

# Left edge, top edge, width and height of a part of a photo, as shares 0-1 of the upright photo's width and height.
Box = tuple[float, float, float, float]

# Pillow's readers are called by class: Image.open would read multi-picture JPEGs as another format, and warn
# about large photos through a filter that cannot be set in one thread alone.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    # Known, so that the refusal can name them.
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "ICO"),
)
_HEIF_BRANDS = (b"hei", b"hev", b"mif", b"msf")
_ORIENTATION_TAG = 0x0112
_MAKE, _MODEL, _EXIF_IFD = 0x010F, 0x0110, 0x8769
_TAKEN, _SERIAL, _CHANGED = 0x9003, 0xA431, 0x0132  # DateTimeOriginal, BodySerialNumber and DateTime
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(Exception):
    """A photo that cannot be decoded; its text is the reason, one short line in plain words."""


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What a photo is, whatever scale it was decoded at.

    format  "JPEG", "PNG", "WEBP", "GIF", "BMP" or "TIFF", by content
    width   pixels of the full-size photo, or of the part of it that a box cuts out, after its EXIF orientation
    height  the same
    size    bytes of the encoded photo, of a crop its share of them by area
    camera  make and model, "" where the photo does not say
    serial  serial number of the camera's body, "" where the photo does not say
    taken   when it was taken by the camera's clock, ISO 8601 to the second, "" where the photo does not say
    changed when the file was last changed by a camera or program, the same way
    """

    format: str
    width: int
    height: int
    size: int = 0
    camera: str = ""
    serial: str = ""
    taken: str = ""
    changed: str = ""

    @property
    def body(self) -> str:
        """The camera that took the photo: make, model and serial number, as far as the photo says them."""
        return " ".join(part for part in (self.camera, self.serial) if part)


def decode_photo(data: bytes, min_side: int | None = None, box: Box | None = None) -> np.ndarray:
    """Decode one photo into uint8 (H, W, 3), RGB, 0-255, upright, transparency on white.

    With `box` only that part of the upright photo is returned. With `min_side` a large JPEG is decoded at 1/2,
    1/4 or 1/8 of its size, as long as the shorter side of what is returned keeps at least that many pixels;
    nothing is resized otherwise. Raises DecodeError for all but a whole photo.
    """
    return decode_with_facts(data, min_side, box)[0]


def decode_with_facts(
    data: bytes, min_side: int | None = None, box: Box | None = None
) -> tuple[np.ndarray, PhotoFacts]:
    """Decode as `decode_photo` does and also return the format and the full size. Raises DecodeError."""
    format_name = _identify(data)
    if format_name == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise DecodeError(recorded("part", "truncated {name}", name="WEBP"))
    try:
        with _READERS[format_name](io.BytesIO(data)) as image:
            full_size = image.size
            _refuse(image)
            if isinstance(image, JpegImagePlugin.JpegImageFile) and min_side is not None:
                _reduce(image, min_side, box)
            image.load()
            orientation = _orientation(image)
            method = _TRANSPOSE.get(orientation)
            if method is not None and orientation >= 5:  # turned by a quarter
                full_size = (full_size[1], full_size[0])
            pixels = _to_rgb(image.transpose(method) if method is not None else image)
            if format_name != "JPEG":  # Pillow's TIFF reader turns the photo itself, some versions early
                full_size = (pixels.shape[1], pixels.shape[0])
            origin = _origin(image)
    except DecodeError:
        raise
    except Exception as error:  # Pillow lets through whatever its parsers stumble over in damaged bytes
        raise DecodeError(_reason(format_name, error)) from error
    size = len(data)
    if box is not None:
        left, top, right, bottom = _edges(box, pixels.shape[1], pixels.shape[0])
        pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
        left, top, right, bottom = _edges(box, *full_size)
        full_size = (right - left, bottom - top)
        size = max(1, round(size * box[2] * box[3]))
    return pixels, PhotoFacts(format_name, *full_size, size, *origin)


def read_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of an upright photo in pixels; a JPEG is not decoded for it. Raises DecodeError."""
    if _identify(data) != "JPEG":  # whether Pillow has turned such a photo is known when it is decoded
        facts = decode_with_facts(data)[1]
        return facts.width, facts.height
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            width, height = image.size
            return (height, width) if _orientation(image) >= 5 else (width, height)
    except Exception as error:  # as in decoding
        raise DecodeError(_reason("JPEG", error)) from error


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Silence Pillow's remarks on odd metadata while many photos are decoded; use it in the main thread."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _identify(data: bytes) -> str:
    if not data:
        raise DecodeError(recorded("part", "empty file"))
    format_name = next((name for start, name in _STARTS if data.startswith(start)), "")
    if data[:4] == b"RIFF":
        format_name = {b"WEBP": "WEBP", b"AVI ": "AVI"}.get(data[8:12], "")
    elif data[4:8] == b"ftyp":
        brand = data[8:12]
        format_name = "AVIF" if brand in (b"avif", b"avis") else "HEIC" if brand[:3] in _HEIF_BRANDS else "MP4 video"
    if not format_name:
        blank = not data.strip(b"\0")
        raise DecodeError(recorded("part", "only zero bytes, no image") if blank else recorded("part", "not an image"))
    if format_name not in _READERS:
        raise DecodeError(recorded("part", "format {name} is not supported", name=format_name))
    return format_name


def _refuse(image: ImageFile.ImageFile) -> None:
    """Raise DecodeError for what should not be decoded: too large, or a camera raw file's preview."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeError(
            recorded("part", "image of {width} x {height} pixels is too large", width=width, height=height)
        )
    # A raw file is a TIFF whose first picture is marked as a reduced preview.
    if isinstance(image, TiffImagePlugin.TiffImageFile) and int(image.tag_v2.get(254, 0)) & 1:
        raise DecodeError(recorded("part", "format camera raw is not supported"))


def _edges(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge of a box in pixels, at least one pixel apart."""
    x, y, share_across, share_down = box
    left, top = min(max(round(x * width), 0), width - 1), min(max(round(y * height), 0), height - 1)
    right, bottom = min(round((x + share_across) * width), width), min(round((y + share_down) * height), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _reduce(image: JpegImagePlugin.JpegImageFile, min_side: int, box: Box | None) -> None:
    """Let the JPEG decoder shrink the photo while the shorter side of its box keeps at least `min_side` pixels."""
    width, height = image.size
    shorter = min(width, height)
    if box is not None:
        across, down = (box[3], box[2]) if _orientation(image) >= 5 else (box[2], box[3])
        shorter = int(min(across * width, down * height))
    for scale in (8, 4, 2):
        if -(-shorter // scale) >= min_side:
            # draft takes the largest scale at which both sides still cover this size: `scale` exactly.
            image.draft(None, (max(1, width // scale), max(1, height // scale)))
            return


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata is no reason to lose the photo
        return 1


def _origin(image: Image.Image) -> tuple[str, str, str, str]:
    """Return camera, serial number and both times of a photo's EXIF data, each "" where it is missing or senseless."""
    try:
        exif = image.getexif()
        more = exif.get_ifd(_EXIF_IFD) if exif else {}
        make, model, serial = (_text(value) for value in (exif.get(_MAKE), exif.get(_MODEL), more.get(_SERIAL)))
        taken, changed = (iso_time(_text(value)[:19]) or "" for value in (more.get(_TAKEN), exif.get(_CHANGED)))
    except Exception:  # damaged metadata is no reason to lose the photo
        return "", "", "", ""
    camera = model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
    return camera, serial, taken, changed


def _text(value: object) -> str:
    """Return a text of EXIF data on one line, "" for what is none."""
    return " ".join(value.replace("\0", " ").split()) if isinstance(value, str) else ""


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3) from an image of any mode."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        grey = _scale_grey(np.asarray(image), mode)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode == "LAB":
        image = _lab_to_rgb(image)
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _scale_grey(grey: np.ndarray, mode: str) -> np.ndarray:
    """Bring grey values of more than 8 bits, (H, W) of any number type, to uint8 0-255."""
    values = np.nan_to_num(grey.astype(np.float64), posinf=0.0, neginf=0.0)
    high = float(values.max(initial=0.0))
    tops = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,)
    values *= 255.0 / next((top for top in tops if high <= top), high)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted: Any = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, rgb, "LAB", "RGB"))
    return converted


def _reason(format_name: str, error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, MemoryError):
        return recorded("part", "not enough memory to decode it")
    if isinstance(error, Image.DecompressionBombError):
        return recorded("part", "image is too large")
    truncated = ("truncated", "not enough image data", "unexpected end", "eof")
    if isinstance(error, EOFError) or any(word in text for word in truncated):
        return recorded("part", "truncated {name}", name=format_name)
    return recorded("part", "damaged {name}", name=format_name)


def create_thumbnail(data: bytes, side: int = 240, box: Box | None = None) -> bytes:
    """Return a small JPEG of a photo or a box in it, at most `side` pixels on its longer side. Raises DecodeError."""
    small = Image.fromarray(decode_photo(data, side, box))
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()
