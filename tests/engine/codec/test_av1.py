"""The size of AV1 frames, and AVIFs that announce another one."""

from __future__ import annotations

import struct

import pytest

from engine.codec.av1 import largest_frame
from engine.codec.boxes import starts_of_items
from engine.codec.header import inspect
from engine.errors import SkipImage
from tests.images import encoded, picture


def announcing(data: bytes, width: int, height: int) -> bytes:
    """Return an AVIF with other sizes in its properties."""
    changed, at = bytearray(data), 0
    while (at := changed.find(b"ispe", at + 1)) > 0:
        struct.pack_into(">II", changed, at + 8, width, height)
    return bytes(changed)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (61, 43), (1, 1), (300, 17)])
def test_frames_of_an_avif_have_the_size_of_the_image(width: int, height: int) -> None:
    data = encoded(picture(width, height), "AVIF", speed=10)
    assert [largest_frame(item) for item in starts_of_items(data, 256)] == [(width, height)]


def test_frames_of_an_animation_and_of_alpha_are_found() -> None:
    still = encoded(picture(64, 48).convert("RGBA"), "AVIF", speed=10)
    assert {largest_frame(item) for item in starts_of_items(still, 256)} == {(64, 48)}
    frames = [picture(64, 48, seed) for seed in range(3)]
    animation = encoded(frames[0], "AVIF", speed=10, save_all=True, append_images=frames[1:])
    assert (64, 48) in {largest_frame(item) for item in starts_of_items(animation, 256)}


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x12\x00", bytes(40)])
def test_data_without_a_sequence_header_have_no_frames(data: bytes) -> None:
    assert largest_frame(data) is None


def test_an_avif_whose_frames_dwarf_its_announced_size_is_refused() -> None:
    data = encoded(picture(1300, 1000), "AVIF", speed=10, quality=10)
    assert inspect(data, 10_000_000).width == 1300
    with pytest.raises(SkipImage, match="a frame of 1300x1000 in an AVIF that announces 256 pixels"):
        inspect(announcing(data, 16, 16), 10_000_000)
