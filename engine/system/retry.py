"""Retry after transient failures, with exponential backoff and jitter, so that workers do not retry in step."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 4
"""Default number of attempts."""


def pauses_s(first_s: float = 0.1, longest_s: float = 5.0) -> Iterator[float]:
    """Yield pauses forever: doubling up to `longest_s`, each shortened at random by up to half."""
    pause_s = first_s
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(longest_s, pause_s * 2)


def retried(
    work: Callable[[], T], passing: type[Exception], failed: Callable[[Exception], None], attempts: int = ATTEMPTS
) -> T:
    """Call `work`, retrying after a pause when it raises `passing`; `failed` is called with each error but the last.

    Raises the error of the last attempt.
    """
    for _, pause_s in zip(range(attempts - 1), pauses_s(), strict=False):
        try:
            return work()
        except passing as error:
            failed(error)
        time.sleep(pause_s)
    return work()
