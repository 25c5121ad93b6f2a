"""What every part of the campaign counts, and how it fails."""

from __future__ import annotations

from collections import Counter

Counts = Counter[str]
"""Number of each thing that was done or seen, in words."""


class Broken(AssertionError):
    """Something was lost, half-written, left over or crashed."""


def require(condition: object, message: str) -> None:
    """Raise `Broken` unless `condition` holds."""
    if not condition:
        raise Broken(message)
