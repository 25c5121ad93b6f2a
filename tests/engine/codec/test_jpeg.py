"""Find damage in JPEGs of every kind; accept oddities that do not affect pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from engine.codec import jpeg
from engine.codec.damage import Damaged
from tests.images import Pixels, encoded, flipped, photo, picture, pixels, zeroed

NOISE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (300, 400, 3), dtype=np.uint8))
TEXTURED = Image.blend(picture(400, 300), NOISE, 0.3)
CMYK = TEXTURED.convert("CMYK")
KINDS: dict[str, tuple[jpeg.ColourSpace, Callable[[], bytes]]] = {
    "baseline": ("RGB", lambda: encoded(TEXTURED, quality=95)),
    "gray": ("RGB", lambda: encoded(TEXTURED.convert("L"), quality=95)),
    "progressive": ("RGB", lambda: encoded(TEXTURED, quality=95, progressive=True)),
    "CMYK": ("CMYK", lambda: encoded(CMYK, quality=95)),
    "progressive CMYK": ("CMYK", lambda: encoded(CMYK, quality=95, progressive=True)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_intact_file_has_the_pixels_that_pillow_reads_and_no_remark(kind: str) -> None:
    colours, make = KINDS[kind]
    found, notes = jpeg.decode(make(), colours)
    with Image.open(io.BytesIO(make())) as image:
        expected = 255 - np.asarray(image) if colours == "CMYK" else np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(found, expected)
    assert notes == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", [0.2, 0.4])
def test_zeroed_bytes_are_damage_in_every_kind(kind: str, position: float) -> None:
    colours, make = KINDS[kind]
    with pytest.raises(Damaged, match=r"damaged: .*--allow-damaged"):
        jpeg.decode(zeroed(make(), position, 1500), colours)


def inserted(data: bytes, marker: bytes, junk: bytes) -> bytes:
    at = data.index(marker)
    return data[:at] + junk + data[at:]


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


ODDITIES: dict[str, Callable[[bytes], bytes]] = {
    "ICC marker without a number": lambda data: inserted(data, b"\xff\xdb", segment(0xE2, b"ICC_PROFILE\x00\x00\x00")),
    "ICC marker of a missing series": lambda data: inserted(
        data, b"\xff\xdb", segment(0xE2, b"ICC_PROFILE\x00\x05\x02ab")
    ),
    "bytes before a table": lambda data: inserted(data, b"\xff\xdb", b"junk"),
    "bytes before the frame": lambda data: inserted(data, b"\xff\xc0", b"\x00\x01\x02"),
    "JFIF 2.01": lambda data: data.replace(b"JFIF\x00\x01\x01", b"JFIF\x00\x02\x01"),
    "scan parameters of no meaning": lambda data: data.replace(
        b"\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00", b"\x03\x01\x00\x02\x11\x03\x11\x00\x00\x00"
    ),
    "zeros before the end": lambda data: data[:-2] + bytes(500) + data[-2:],
    "ones before the end": lambda data: data[:-2] + b"\xff" * 9 + data[-2:],
    "bytes behind the end": lambda data: data + b"a video, for instance",
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_oddity_that_affects_no_pixel_is_not_damage(oddity: str) -> None:
    intact = photo(200, 150, quality=95)
    odd = ODDITIES[oddity](intact)
    assert odd != intact
    found, notes = jpeg.decode(odd, "RGB")
    np.testing.assert_array_equal(found, pixels(intact))
    assert all(note.startswith("odd but undamaged JPEG: ") for note in notes)


def test_an_oddity_does_not_hide_damage() -> None:
    damaged = ODDITIES["JFIF 2.01"](zeroed(photo(400, 300, quality=95), 0.5, 1500))
    with pytest.raises(Damaged):
        jpeg.decode(damaged, "RGB")


def resampled(horizontal: int, vertical: int) -> bytes:
    """Return a JPEG whose luminance has a sampling that libjpeg-turbo's own interface has no name for.

    A flat image has the same blocks in any order, so that the factors can be changed in its header.
    """
    data = bytearray(encoded(Image.new("RGB", (64, 64), (90, 120, 200)), subsampling=2, quality=95))
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x22
    data[frame + 11] = horizontal << 4 | vertical
    blocks = horizontal * vertical
    size = 64 * 4 // blocks  # the number of units must not change
    struct.pack_into(">HH", data, frame + 5, 8 * vertical * (size // 16 or 1), 8 * horizontal * 2)
    return bytes(data)


@pytest.mark.parametrize("sampling", [(4, 2), (2, 4)])
def test_unusual_sampling_is_read_with_a_remark(sampling: tuple[int, int]) -> None:
    data = resampled(*sampling)
    found, notes = jpeg.decode(data, "RGB")
    np.testing.assert_array_equal(found, pixels(data))
    assert notes == ("unusual chroma sampling; damage cannot be checked in it",)


def test_a_broken_scan_of_fine_detail_is_a_remark() -> None:
    """Cuts two bytes from the last scan of a smooth image, whose high frequencies are almost zero."""
    data = encoded(Image.linear_gradient("L").convert("RGB"), quality=95, progressive=True)
    found, notes = jpeg.decode(data[:-4] + data[-2:], "RGB")
    assert np.abs(found.astype(int) - pixels(data)).mean() < 1
    assert all(note.startswith(("slightly damaged", "odd but undamaged")) for note in notes)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "CMYK"])
def test_allow_damaged_decodes_as_much_as_possible(kind: str) -> None:
    colours, make = KINDS[kind]
    found = jpeg.decode_damaged(zeroed(make(), 0.5, 1500), colours)
    assert found.shape[:2] == (300, 400)
    with pytest.raises(Damaged):
        jpeg.decode(zeroed(make(), 0.5, 1500), colours)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_decoding_by_the_inverse_dct(kind: str) -> None:
    colours, make = KINDS[kind]
    whole, _ = jpeg.decode(make(), colours)
    small, _ = jpeg.decode(make(), colours, least=(75, 100))
    assert small.shape[:2] == (75, 100)
    averaged = whole.reshape(75, 4, 100, 4, -1).mean((1, 3))
    assert np.abs(averaged - small).mean() < 4


def test_without_libjpeg_turbo_pillow_decodes_and_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {kind: jpeg.decode(make(), colours)[0] for kind, (colours, make) in KINDS.items()}
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for kind, (colours, make) in KINDS.items():
        np.testing.assert_array_equal(jpeg.decode(make(), colours)[0], expected[kind])
    with pytest.raises(Damaged, match="truncated"):
        jpeg.decode(photo(400, 300)[:-2000], "RGB")
    array: Pixels = np.array(picture())
    assert np.abs(pixels(jpeg.encode(array, 95, "4:4:4")) - array.astype(int)).mean() < 3


def test_flipped_bits_are_damage() -> None:
    with pytest.raises(Damaged):
        jpeg.decode(flipped(photo(400, 300, quality=95), 0.5), "RGB")


@pytest.mark.parametrize("kind", ["baseline", "gray", "CMYK"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_missing_end_marker_alone_is_a_remark(kind: str, cut: int) -> None:
    colours, make = KINDS[kind]
    whole = make()
    found, notes = jpeg.decode(whole[:-cut], colours)
    np.testing.assert_array_equal(found, jpeg.decode(whole, colours)[0])
    assert notes == ("odd but undamaged JPEG: Premature end of JPEG file",)


@pytest.mark.parametrize("kind", ["baseline", "gray", "CMYK"])
@pytest.mark.parametrize("cut", [8, 300])
def test_missing_pixels_at_the_end_are_damage(kind: str, cut: int) -> None:
    colours, make = KINDS[kind]
    with pytest.raises(Damaged):
        jpeg.decode(make()[:-cut], colours)


def test_a_progressive_file_without_its_end_is_damage() -> None:
    """Nothing shows whether scans are missing."""
    colours, make = KINDS["progressive"]
    with pytest.raises(Damaged):
        jpeg.decode(make()[:-2], colours)
