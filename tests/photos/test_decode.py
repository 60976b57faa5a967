from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest
from photo_files import encode, noise
from PIL import Image

from wildtune.photos import decode
from wildtune.photos.decode import DecodeError, decode_photo, decode_with_facts

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_by_content(format_name: str) -> None:
    pixels, facts = decode_with_facts(encode(noise(1), format_name))
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    assert (facts.format, facts.width, facts.height) == (format_name, 60, 40)
    assert np.abs(pixels.astype(int) - noise(1)).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGB"])
def test_modes_without_alpha(mode: str) -> None:
    image = Image.fromarray(noise(2)).convert(mode)
    format_name = {"YCbCr": "JPEG", "CMYK": "TIFF"}.get(mode, "PNG")
    pixels = decode_photo(encode(image, format_name))
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 6


def test_cmyk_jpeg_is_not_inverted() -> None:
    image = Image.new("RGB", (32, 32), (200, 30, 30)).convert("CMYK")
    assert np.abs(decode_photo(encode(image))[16, 16].astype(int) - (200, 30, 30)).max() < 12


def test_lab_tiff() -> None:
    white = Image.merge("LAB", [Image.new("L", (8, 8), v) for v in (255, 128, 128)])
    assert decode_photo(encode(white, "TIFF")).min() > 245


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((10, 10, 10, 255), (0, 0, 10, 20))
    pixels = decode_photo(encode(image.convert(mode) if mode != "P" else image.quantize(), "PNG"))
    assert (pixels[:, 15] == 255).all()
    assert pixels[:, 5].max() < 20


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_rare_alpha_modes(mode: str) -> None:
    plain = Image.new("LA" if mode == "La" else "RGBA", (4, 4))
    image = Image.new("PA", (4, 4)) if mode == "PA" else plain.convert(mode)
    assert (decode._to_rgb(image) == 255).all()


@pytest.mark.parametrize(("format_name", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("TIFF", "<i4")])
def test_16_bit_grey_is_scaled_not_clipped(format_name: str, dtype: str) -> None:
    grey = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(dtype)
    pixels = decode_photo(encode(Image.fromarray(grey), format_name))
    expected = np.rint(grey.astype(np.float64) / 257)
    assert (pixels == expected[:, :, None]).all()


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_tiff(top: float) -> None:
    grey = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    pixels = decode_photo(encode(Image.fromarray(grey), "TIFF"))
    assert pixels.min() == 0
    assert pixels.max() == 255


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise(3), format_name, exif=exif)
    flat = {1: noise(3), 2: noise(3)[:, ::-1], 3: noise(3)[::-1, ::-1], 4: noise(3)[::-1]}
    turned = noise(3).transpose(1, 0, 2)
    flat |= {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}
    pixels, facts = decode_with_facts(data)
    expected = flat[orientation]
    assert (facts.height, facts.width) == expected.shape[:2] == pixels.shape[:2]
    assert np.abs(pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("format_name", FORMATS)
def test_truncated_is_an_error(format_name: str) -> None:
    data = encode(noise(4), format_name)
    for share in (0.2, 0.5, 0.8):
        with pytest.raises(DecodeError):
            decode_photo(data[: int(len(data) * share)])
    with pytest.raises(DecodeError, match="truncated JPEG"):
        decode_photo(encode(noise(4))[:-20])


def test_damage_is_only_ever_a_decode_error() -> None:
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for format_name in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
            data = encode(noise(5), format_name)
            for _ in range(60):
                damaged = bytearray(data)
                for _ in range(6):
                    damaged[random.integers(len(data))] = random.integers(256)
                with contextlib.suppress(DecodeError):
                    assert decode_photo(bytes(damaged)).shape[2] == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (bytes(100), "only zero bytes, no image"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "format HEIC is not supported"),
        (b"8BPS" + bytes(20), "format PSD is not supported"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_photo(data)


def test_too_large_is_refused_by_its_header() -> None:
    data = bytearray(encode(noise(6)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (40000).to_bytes(2) * 2
    with pytest.raises(DecodeError, match="image of 40000 x 40000 pixels is too large"):
        decode_photo(bytes(data))


def test_thumbnail() -> None:
    with Image.open(io.BytesIO(decode.create_thumbnail(encode(noise(8, 300, 600), "PNG"), 100))) as image:
        assert (image.format, image.size) == ("JPEG", (100, 50))


def test_reduced_decoding_keeps_min_side_and_full_size_facts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(noise(7, 500, 811), exif=exif)
    for min_side, shape in (
        (64, (102, 63)),
        (62, (102, 63)),
        (63, (102, 63)),
        (250, (406, 250)),
        (251, (811, 500)),
    ):
        pixels, facts = decode_with_facts(data, min_side)
        assert min(pixels.shape[:2]) >= min_side
        assert (facts.width, facts.height) == (500, 811)
        if min_side != 64:
            assert pixels.shape[:2] == shape
    assert decode_photo(encode(noise(7, 500, 811), "PNG"), 64).shape == (500, 811, 3)
