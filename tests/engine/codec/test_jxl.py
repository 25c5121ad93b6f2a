"""Read the bits per sample from the header of a JPEG XL."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest

from engine.codec import jxl
from engine.codec.header import inspect


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (64, 96, 3), (65, 97, 4), (300, 200, 3), (3, 30, 40, 3)])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.float16, 16), (np.float32, 32)])
def test_bits_of_every_size_and_type(dtype: Any, bits: int, shape: tuple[int, ...], boxed: bool) -> None:
    assert jxl.bits(bytes(imagecodecs.jpegxl_encode(np.zeros(shape, dtype), usecontainer=boxed))) == bits


@pytest.mark.parametrize("bits", [10, 12])
def test_bits_between_bytes(bits: int) -> None:
    data = imagecodecs.jpegxl_encode(np.zeros((16, 24, 3), np.uint16), lossless=True, bitspersample=bits)
    assert inspect(bytes(data), 1000).depth == bits


@pytest.mark.parametrize("data", [b"", b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n", b"\xff\x0a\xff"])
def test_a_broken_header_counts_as_8_bits_or_what_is_there(data: bytes) -> None:
    assert 1 <= jxl.bits(data) <= 64
