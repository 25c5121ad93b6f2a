"""Trying again after passing trouble, at random moments, so that many workers do not all try at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 4
"""How often something is tried that others can do without."""


def pauses_s(first_s: float = 0.1, longest_s: float = 5.0) -> Iterator[float]:
    """Iterate over pauses without end: doubling up to `longest_s`, each shortened at random by up to half."""
    pause_s = first_s
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(longest_s, pause_s * 2)


def retried(
    work: Callable[[], T], passing: type[Exception], failed: Callable[[Exception], None], attempts: int = ATTEMPTS
) -> T:
    """Do `work`, again after a pause when it raises `passing`; `failed` hears of each time but the last.

    Raises what the last attempt raised.
    """
    for _, pause_s in zip(range(attempts - 1), pauses_s(), strict=False):
        try:
            return work()
        except passing as error:
            failed(error)
        time.sleep(pause_s)
    return work()
