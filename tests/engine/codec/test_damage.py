"""Data compressed by deflate are checked in little memory."""

from __future__ import annotations

import random
import zlib

import pytest

from engine.codec.damage import require_intact_deflate

PIXELS = random.Random(1).randbytes(700_000) + bytes(700_000)


def test_the_size_of_an_intact_stream_is_returned() -> None:
    assert require_intact_deflate(zlib.compress(PIXELS), len(PIXELS)) == len(PIXELS)
    assert require_intact_deflate(zlib.compress(b""), 0) == 0
    assert require_intact_deflate(zlib.compress(PIXELS) + b"behind it", len(PIXELS)) == len(PIXELS)


def test_a_stream_without_its_end_is_damaged() -> None:
    data = zlib.compress(PIXELS)
    for missing in (1, 4, 5, len(data) // 2, len(data)):
        with pytest.raises(ValueError, match="incomplete"):
            require_intact_deflate(data[:-missing], len(PIXELS))


def test_a_wrong_checksum_is_damage() -> None:
    with pytest.raises(ValueError, match="incorrect data check"):
        require_intact_deflate(zlib.compress(PIXELS)[:-1] + b"?", len(PIXELS))


def test_a_stream_that_expands_without_bound_is_left_early() -> None:
    compressor = zlib.compressobj(9)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(100)) + compressor.flush()
    with pytest.raises(ValueError, match="more pixels than its header announces"):
        require_intact_deflate(bomb, 10_000)
