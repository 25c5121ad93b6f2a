"""Encode to every format; an image that its format cannot hold fails alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from engine.codec.encode import Encoder
from engine.codec.formats import FORMATS, output_format
from engine.config import EncodeConfig
from engine.options import Options
from engine.records import DecodedImage, Encoded, Failed, Record
from tests.images import picture, pixels, psnr_db

PIXELS = np.array(picture(64, 48))


def record(format: str, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = PIXELS) -> Record[DecodedImage]:
    held = DecodedImage(torch.from_numpy(array.copy()), "JPEG", notes=("first of 3 frames",))
    return Record(key="a", payload=held, options=Options(format=format))


def encode(format: str, **config: int | str | bool) -> Encoded:
    (result,) = Encoder(EncodeConfig(**config))([record(format)])  # type: ignore[arg-type]
    assert isinstance(result, Record)
    return result.payload


@pytest.mark.parametrize("format", list(FORMATS))
def test_each_format_holds_the_image(format: str) -> None:
    result = encode(format)
    assert (result.width, result.height, result.notes[0]) == (64, 48, "first of 3 frames")
    with Image.open(io.BytesIO(result.data)) as image:
        assert (image.format, image.mode, image.size) == (result.format, "RGB", (64, 48))
    if format in ("png", "tiff"):
        assert np.array_equal(pixels(result.data), PIXELS)
    else:
        assert psnr_db(pixels(result.data), PIXELS) > 35


def test_quality_and_subsampling_settings() -> None:
    def sampling(result: Encoded) -> int:
        with Image.open(io.BytesIO(result.data)) as image:
            return int(image.layer[0][1]) * 10 + int(image.layer[0][2])  # type: ignore[attr-defined]

    sizes = [len(encode("jpeg", quality=quality).data) for quality in (30, 60, 90)]
    assert sizes == sorted(set(sizes))
    assert [sampling(encode("jpeg", subsampling=s)) for s in ("4:4:4", "4:2:2", "4:2:0")] == [11, 21, 22]


def test_progressive_and_lossless_settings() -> None:
    with Image.open(io.BytesIO(encode("jpeg", progressive=True).data)) as image:
        assert image.info["progressive"]
    assert np.array_equal(pixels(encode("webp", lossless=True).data), PIXELS)


def test_encoding_is_deterministic() -> None:
    for format in FORMATS:
        assert encode(format).data == encode(format).data


def test_an_image_that_its_format_cannot_hold_fails_alone() -> None:
    wide = np.zeros((1, 16_384, 3), np.uint8)
    results = Encoder(EncodeConfig())([record("webp", wide), record("webp"), record("png", wide)])
    assert [type(result) for result in results] == [Failed, Record, Record]
    assert isinstance(results[0], Failed)
    assert results[0].reason == "WEBP cannot hold 16384x1 pixels; use --format png or tiff"


def test_failures_are_passed_through_in_order() -> None:
    failed = Failed(key="x", stage="decode", reason="r")
    results = Encoder(EncodeConfig())([record("png"), failed])
    assert results[1] is failed


@pytest.mark.parametrize(
    ("asked", "came_in", "goes_out"),
    [
        ("keep", "JPEG", "JPEG"),
        ("keep", "MPO", "JPEG"),
        ("keep", "HEIF", "JPEG"),
        ("keep", "JPEG2000", "JPEG"),
        ("keep", "GIF", "PNG"),
        ("keep", "BMP", "PNG"),
        ("keep", "TIFF", "TIFF"),
        ("keep", "AVIF", "AVIF"),
        ("webp", "JPEG", "WEBP"),
    ],
)
def test_format_keep_falls_back_where_a_format_cannot_be_written(asked: str, came_in: str, goes_out: str) -> None:
    assert output_format(asked, came_in) == goes_out
