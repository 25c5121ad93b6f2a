"""Leave out PNG chunks that Pillow refuses, with a remark; find damaged pixels."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from engine.codec import png
from engine.codec.damage import Damaged
from engine.codec.header import inspect
from tests.images import flipped, photo, pixels, png_chunk, png_with

PNG = photo(200, 150, format="PNG")


def broken(chunk: bytes) -> bytes:
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


@pytest.mark.parametrize(
    ("chunk", "note"),
    [
        (png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2_000_000)), "PNG text Comment dropped: longer"),
        (
            png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"a" * 2_000_000)),
            "PNG text XML:com.adobe.xmp dropped: longer",
        ),
        (broken(png_chunk(b"tEXt", b"Title\0Half Dome")), "PNG chunk tEXt dropped: its checksum is wrong"),
    ],
)
def test_a_chunk_that_pillow_refuses_is_left_out(chunk: bytes, note: str) -> None:
    seen = inspect(png_with(PNG, chunk), 1_000_000)
    assert len(seen.notes) == 1
    assert seen.notes[0].startswith(note)
    np.testing.assert_array_equal(pixels(seen.data), pixels(PNG))


def test_other_chunks_are_kept() -> None:
    data = png_with(PNG, png_chunk(b"tEXt", b"Title\0Half Dome"), png_chunk(b"zTXt", b"A\0\0" + zlib.compress(b"b")))
    assert png.without_bad_chunks(data) == (data, ())
    assert inspect(data, 1_000_000).metadata.texts == (("Title", "Half Dome"), ("A", "b"))


def test_flipped_bits_in_the_pixels_are_damage() -> None:
    """Pillow does not verify the checksum of pixel data."""
    with pytest.raises(Damaged, match="wrong PNG checksum"):
        png.check(flipped(PNG, 0.5))
    assert png.check(PNG) == ()


def test_a_wrong_checksum_alone_is_a_remark() -> None:
    end = PNG.index(b"IEND") - 4
    data = PNG[: end - 1] + bytes([PNG[end - 1] ^ 1]) + PNG[end:]
    assert png.check(data) == ("odd but undamaged PNG: the checksum of a chunk is wrong, that of the pixels is right",)


def test_metadata_chunks_move_to_another_png() -> None:
    source = png_with(PNG, png_chunk(b"tEXt", b"Title\0Half Dome"))
    target = photo(20, 10, format="PNG", dpi=(72, 72))
    with Image.open(io.BytesIO(png.with_metadata_of(target, source))) as image:
        image.load()
        assert image.info == {"Title": "Half Dome"}
        np.testing.assert_array_equal(np.asarray(image), pixels(target))


def test_a_missing_end_is_a_remark() -> None:
    whole = photo(format="PNG")
    assert png.check(whole) == ()
    assert png.check(whole[:-12]) == ("odd but undamaged PNG: it ends without the chunk that marks its end",)
