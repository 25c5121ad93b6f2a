"""Images that Pillow misreads, refuses or cuts to 8 bits are read by the optional readers."""

from __future__ import annotations

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from engine.codec import deep, header
from engine.codec.colour import adobe_rgb_icc, from_pixels
from engine.codec.decode import Decoder
from engine.codec.encode import Encoder
from engine.codec.header import inspect
from engine.config import DecodeConfig, EncodeConfig
from engine.errors import SkipImage
from engine.options import Options
from engine.records import Encoded, Failed, Record
from tests.engine.codec.test_tiff import decoded, written
from tests.images import described, picture

VALUES = np.random.default_rng(1).integers(0, 65536, (24, 32, 3), dtype=np.uint16)
ROUNDED = np.round(VALUES / 257).astype(np.uint8)


def encode(data: bytes, format: str = "keep", **config: Any) -> Encoded:
    """Decode and encode with 16 bits per channel, without a generator in between."""
    picture = decoded(data, depth=16)
    record = Record(key="a", payload=picture, options=Options(format=format, depth=16))
    (result,) = Encoder(EncodeConfig(**config))([record])
    assert not isinstance(result, Failed), result
    return result.payload


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_16_bit_tiffs_are_rounded(byteorder: str, planar: str, compression: str | None) -> None:
    array = np.moveaxis(VALUES, -1, 0) if planar == "separate" else VALUES
    data = written(array, photometric="rgb", byteorder=byteorder, planarconfig=planar, compression=compression)
    result = decoded(data)
    np.testing.assert_array_equal(result.pixels_HWC.numpy(), ROUNDED)
    assert result.depth == 16


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_10_12_and_14_bits_are_read(bits: int) -> None:
    values = VALUES >> (16 - bits)
    data = packed(values, bits)
    np.testing.assert_allclose(decoded(data).pixels_HWC.numpy(), values * (255 / (2**bits - 1)), atol=0.51)


def packed(values: Any, bits: int) -> bytes:
    """Write samples of `bits` bits, each row packed to whole bytes (TIFF 6.0, section 3), which tifffile does not."""
    rows = [
        np.packbits(((row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()).tobytes()
        for row in values
    ]
    data = bytearray(written(values, photometric="rgb", rowsperstrip=values.shape[0]))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages.first
        offset, sizes = page.dataoffsets[0], page.tags[258].valueoffset
        count = page.tags[279].valueoffset
    strip = b"".join(rows)
    data[offset : offset + len(strip)] = strip
    data[sizes : sizes + 6] = np.array([bits] * 3, "<u2").tobytes()
    data[count : count + 4] = np.array([len(strip)], "<u4").tobytes()
    return bytes(data)


def test_floating_point_colour_is_read_with_1_as_white() -> None:
    values = (VALUES / 65535).astype(np.float32)
    result = decoded(written(values, photometric="rgb"))
    np.testing.assert_allclose(result.pixels_HWC.numpy(), values * 255, atol=0.55)
    brighter = decoded(written(values * 4, photometric="rgb"))
    assert "brightness scaled: the largest value" in brighter.notes[0]
    np.testing.assert_allclose(brighter.pixels_HWC.numpy(), values * 255, atol=0.55)


def test_alpha_of_a_16_bit_tiff_is_read_and_premultiplied_colour_divided() -> None:
    alpha = np.full((24, 32, 1), 32768, np.uint16)
    alpha[:12] = 65535
    straight = np.concatenate([VALUES, alpha], 2)
    multiplied = np.concatenate([(VALUES * (alpha / 65535.0)).round().astype(np.uint16), alpha], 2)
    for array, kind in ((straight, "unassalpha"), (multiplied, "assocalpha")):
        result = decoded(written(array, photometric="rgb", extrasamples=[kind]))
        assert np.abs(result.pixels_HWC.numpy().astype(int) - ROUNDED).max() <= 1
        assert result.alpha_HW is not None
        np.testing.assert_array_equal(result.alpha_HW.numpy(), np.round(alpha[..., 0] / 257))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_pngs_are_rounded_with_their_alpha(channels: int) -> None:
    values = np.random.default_rng(2).integers(0, 65536, (24, 32, channels), dtype=np.uint16)
    result = decoded(bytes(imagecodecs.png_encode(values if channels > 1 else values[..., 0])))
    colours = values[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(result.pixels_HWC.numpy(), np.broadcast_to(np.round(colours / 257), (24, 32, 3)))
    assert (result.alpha_HW is None) == (channels in (1, 3))
    if result.alpha_HW is not None:
        np.testing.assert_array_equal(result.alpha_HW.numpy(), np.round(values[..., -1] / 257))


@pytest.mark.parametrize(("bits", "channels"), [(10, 3), (12, 3), (16, 1), (16, 2), (16, 3), (16, 4)])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_white_of_a_deep_jpeg_2000_stays_white(bits: int, channels: int, codec: str) -> None:
    """Pillow rounds it up to 256, which is stored as 0."""
    white = 2**bits - 1
    values = np.linspace(0, white, 24 * 32 * channels).round().astype(np.uint16).reshape(24, 32, channels)
    data = bytes(
        imagecodecs.jpeg2k_encode(
            values if channels > 1 else values[..., 0], codecformat=codec, level=0, bitspersample=bits
        )
    )
    result = decoded(data, depth=16)
    expected = np.round(values[..., : 1 if channels < 3 else 3] / white * 255)
    assert np.abs(result.pixels_HWC.numpy() - np.broadcast_to(expected, (24, 32, 3))).max() <= 1
    assert (result.depth, int(result.pixels_HWC.max())) == (bits, 255)
    assert result.deep_HWC is not None
    assert (result.alpha_HW is None) == (channels in (1, 3))


def test_the_depth_of_a_jpeg_2000_is_found_behind_long_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(imagecodecs.jpeg2k_encode(VALUES, codecformat="jp2", level=0))
    at = data.index(b"jp2c") - 4
    long = data[:at] + (100_008).to_bytes(4) + b"free" + bytes(100_000) + data[at:]
    assert inspect(long, 1_000_000).depth == 16
    monkeypatch.setattr(deep, "installed", lambda: False)
    with pytest.raises(SkipImage, match=r"\[deep\]"):
        inspect(long, 1_000_000)


def test_gray_of_32_bits_is_read_without_a_sign() -> None:
    values = np.linspace(0, 2**32 - 1, 24 * 32).reshape(24, 32)
    result = decoded(written(values.astype(np.uint32), photometric="minisblack"))
    assert np.abs(result.pixels_HWC.numpy()[..., 0] - values / (2**32 - 1) * 255).max() <= 1
    assert result.notes == ("brightness scaled: the largest value, 4.29497e+09, is taken as white",)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_gray_of_signed_integers_of_more_bits_is_read_with_16_bits_as_white(dtype: Any) -> None:
    values = np.linspace(-100, 32767, 24 * 32).reshape(24, 32).astype(dtype)
    result = decoded(written(values, photometric="minisblack"))
    assert np.abs(result.pixels_HWC.numpy()[..., 0] - np.maximum(values, 0) / 65535 * 255).max() <= 1


def test_gray_of_signed_bytes_is_refused() -> None:
    """Pillow takes them as unsigned."""
    data = written(np.zeros((24, 32), np.int8), photometric="minisblack")
    record = Record(key="a", payload=inspect(data, 1_000_000), options=Options())
    (failed,) = Decoder(DecodeConfig())([record])
    assert isinstance(failed, Failed)
    assert "signed integers" in failed.reason


def test_channels_beside_colour_and_alpha_are_named() -> None:
    five = np.zeros((24, 32, 5), np.uint8)
    data = written(five, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    assert described(data).notes == ("left out: 1 further channel of the TIFF",)


def test_without_the_readers_pillow_reads_8_bits_or_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deep, "installed", lambda: False)
    chunky, planar = (
        written(array, photometric="rgb", planarconfig=kind)
        for array, kind in ((VALUES, "contig"), (np.moveaxis(VALUES, -1, 0), "separate"))
    )
    assert np.abs(decoded(chunky).pixels_HWC.numpy().astype(int) - ROUNDED).max() <= 1
    gray = written(np.zeros((24, 32), np.uint32), photometric="minisblack")
    for misread in (planar, gray):
        with pytest.raises(SkipImage, match=r"\[deep\]"):
            inspect(misread, 1_000_000)


@pytest.mark.parametrize(("depth", "format", "kept"), [(16, "png", True), (16, "tiff", True), (16, "jpeg", False)])
def test_16_bits_are_kept_where_the_format_holds_them(depth: int, format: str, kept: bool) -> None:
    result = encode(written(VALUES, photometric="rgb", description="früh".encode()), format)
    assert [note for note in result.notes if "bits per channel" in note] == (
        [] if kept else ["16 bits per channel became 8: JPEG holds no more"]
    )
    if kept:
        read = imagecodecs.png_decode if format == "png" else lambda data: tifffile.imread(io.BytesIO(data))
        np.testing.assert_array_equal(read(result.data), VALUES)
        exif = described(result.data).exif
        assert exif is not None
        assert "früh".encode() in exif


def test_reduction_from_16_to_8_bits_is_a_remark() -> None:
    record = Record(key="a", payload=decoded(written(VALUES, photometric="rgb")), options=Options(format="png"))
    (result,) = Encoder(EncodeConfig())([record])
    assert isinstance(result, Record)
    assert "16 bits per channel became 8: --depth 16 keeps more in PNG and TIFF" in result.payload.notes


def test_a_profile_is_applied_in_16_bits() -> None:
    ramp = np.repeat(np.linspace(20_000, 20_300, 256).astype(np.uint16)[None, :, None], 3, axis=2)
    data = written(ramp, photometric="rgb", iccprofile=adobe_rgb_icc())
    result = decoded(data, depth=16)
    assert result.deep_HWC is not None
    values = result.deep_HWC.numpy()
    assert len(np.unique(values)) > 100
    assert np.abs(values / 257 - from_pixels(np.round(ramp / 257).astype(np.uint8), adobe_rgb_icc()).pixels).max() < 1.5


def test_raw_is_recognised_by_content_and_developed_upright() -> None:
    data = dng(orientation=6)
    seen = inspect(data, 1_000_000)
    assert (seen.format, seen.reader, seen.width, seen.height) == ("RAW", "raw", 64, 96)
    result = decoded(data)
    assert tuple(result.pixels_HWC.shape) == (96, 64, 3)
    assert result.metadata.orientation == 1
    assert result.metadata.exif is not None
    assert b"Maker" in result.metadata.exif
    assert result.notes == ("developed from RAW with the camera's white balance",)


def test_raw_without_its_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "can_read", lambda format: False)
    with pytest.raises(SkipImage, match=r"\[raw\]"):
        inspect(dng(), 1_000_000)


def dng(orientation: int = 1) -> bytes:
    """Write the smallest RAW photo: a Bayer pattern of a gradient, with the colour matrix of sRGB."""
    y, x = np.mgrid[:64, :96]
    colours = np.stack([x / 96, y / 64, np.full((64, 96), 0.3)])
    channel = (y % 2) + (x % 2)  # red, green, green, blue
    sensor = (np.take_along_axis(colours, channel[None], 0)[0] * 60_000).astype(np.uint16)
    matrix = [3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570]
    tags = [
        (50706, 1, 4, (1, 4, 0, 0)), (50707, 1, 4, (1, 1, 0, 0)), (50708, 2, 0, "Test camera"), (33421, 3, 2, (2, 2)),
        (33422, 1, 4, (0, 1, 1, 2)), (50721, 10, 9, [n for m in matrix for n in (round(m * 10_000), 10_000)]),
        (50728, 5, 3, [1] * 6), (50778, 3, 1, 21), (50717, 4, 1, 65535), (50714, 4, 1, 0), (274, 3, 1, orientation),
        (271, 2, 0, "Maker"), (272, 2, 0, "Model"),
    ]  # fmt: skip
    return written(sensor, photometric=32803, extratags=tags)


def test_jpeg_xl_is_read_upright() -> None:
    import pillow_jxl  # noqa: F401  # registers itself with Pillow

    exif = Image.Exif()
    exif[0x010F] = "Maker"
    buffer = io.BytesIO()
    picture().save(buffer, "JXL", lossless=True, exif=exif.tobytes())
    result = decoded(buffer.getvalue())
    assert result.format == "JXL"
    assert np.abs(result.pixels_HWC.numpy().astype(int) - np.asarray(picture())).max() <= 1
    assert result.metadata.orientation == 1


def test_an_unknown_kind_of_tiff_is_refused_with_a_reason() -> None:
    with pytest.raises(SkipImage, match="TIFF of a kind that is not read"):
        inspect(written(VALUES.astype(np.int16), photometric="rgb"), 1_000_000)
