"""The size of the frames in an AV1 bitstream, from its sequence header (AV1 specification, 5.3 and 5.5)."""

from __future__ import annotations

_SEQUENCE_HEADER = 1
_MAX_UNITS = 8


def largest_frame(data: bytes) -> tuple[int, int] | None:
    """Return the largest width and height that the frames may have; None where no sequence header comes first."""
    at = 0
    try:
        for _ in range(_MAX_UNITS):
            kind, has_extension, has_size = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
            at += 1 + has_extension
            size, at = _leb128(data, at) if has_size else (len(data) - at, at)
            if kind == _SEQUENCE_HEADER:
                return _frame_of_sequence(_BigEndianBits(data[at : at + size]))
            at += size
    except IndexError:
        pass
    return None


class _BigEndianBits:
    """Reads unsigned numbers, the most significant bit first; raises `IndexError` behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - self._at % 8) & 1
            self._at += 1
        return value

    def read_uvlc(self) -> int:
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        return self.read(zeros)


def _frame_of_sequence(bits: _BigEndianBits) -> tuple[int, int]:
    bits.read(4)  # profile, still picture
    if bits.read(1):  # reduced header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _BigEndianBits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):
            bits.read_uvlc()
        if bits.read(1):  # decoder model
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in little-endian base 128, and the position behind it."""
    value = 0
    for i in range(8):
        value |= (data[at + i] & 0x7F) << 7 * i
        if not data[at + i] & 0x80:
            return value, at + i + 1
    raise IndexError
