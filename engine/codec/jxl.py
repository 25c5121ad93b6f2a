"""The header of a JPEG XL (ISO/IEC 18181-1, annexes B and D): bits per sample, which its reader does not tell."""

from __future__ import annotations

_BARE = b"\xff\x0a"
_HEADER_BYTES = 64
"""More than the fields up to the bits per sample can take."""


def bits(data: bytes) -> int:
    """Return the bits per sample of a JPEG XL, bare or in boxes; 8 where the header cannot be read."""
    at = 0 if data.startswith(_BARE) else _in_boxes(data)
    if at < 0:
        return 8
    fields = _Bits(data[at + len(_BARE) : at + len(_BARE) + _HEADER_BYTES])
    fields.skip_size()
    if fields.take(1):  # everything is the default
        return 8
    if fields.take(1):  # extra fields
        fields.take(3)  # orientation
        if fields.take(1):
            fields.skip_size()
        if fields.take(1):
            fields.skip_preview_size()
        if fields.take(1):
            fields.skip_animation()
    is_float = fields.take(1)
    return fields.choice(*((32, 0), (16, 0), (24, 0), (1, 6)) if is_float else ((8, 0), (10, 0), (12, 0), (1, 6)))


def _in_boxes(data: bytes) -> int:
    """Return where the codestream starts in a file of boxes; -1 for none."""
    for kind, skipped in ((b"jxlc", 4), (b"jxlp", 8)):
        at = data.find(kind + (b"" if kind == b"jxlc" else b"\x00\x00\x00\x00") + _BARE)
        if at >= 0:
            return at + skipped
    return -1


class _Bits:
    """Fields of the header, least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choice(self, *ways: tuple[int, int]) -> int:
        """Return one of four constants, each plus a number of so many bits."""
        least, count = ways[self.take(2)]
        return least + self.take(count)

    def skip_size(self) -> None:
        """Skip a height, and a width or its ratio to the height."""
        small = self.take(1)
        sizes = ((1, 9), (1, 13), (1, 18), (1, 30))
        self.take(5) if small else self.choice(*sizes)
        if not self.take(3):
            self.take(5) if small else self.choice(*sizes)

    def skip_preview_size(self) -> None:
        eighths = self.take(1)
        sizes = ((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))
        self.choice(*sizes)
        if not self.take(3):
            self.choice(*sizes)

    def skip_animation(self) -> None:
        self.choice((100, 0), (1000, 0), (1, 10), (1, 30))  # ticks per second
        self.choice((1, 0), (1001, 0), (1, 8), (1, 10))
        self.choice((0, 0), (0, 3), (0, 16), (0, 32))  # loops
        self.take(1)  # time codes
