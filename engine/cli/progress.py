"""The progress line on a terminal: done, failed, rate, time left, and the image that takes long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

SMOOTHING_S = 20.0
"""Time constant over which the rate is averaged."""

SLOW_S = 5.0
"""An image that is under way for longer is named."""


class SmoothedRate:
    """Units per second, averaged with weights that decay exponentially with age.

    Counting starts with the first units, which stand for the time before them and are not counted themselves, so that
    the time until then (loading a model) does not lower the rate.
    """

    def __init__(self, smoothing_s: float = SMOOTHING_S) -> None:
        self._smoothing_s = smoothing_s
        self._sum = 0.0
        self._started_s: float | None = None
        self._updated_s = 0.0

    def add(self, units: float, now_s: float) -> None:
        """Count `units` that ended at `now_s`."""
        if self._started_s is None:
            self._started_s = self._updated_s = now_s
            return
        self._sum = self._sum * math.exp((self._updated_s - now_s) / self._smoothing_s) + units
        self._updated_s = now_s

    def per_second(self, now_s: float) -> float | None:
        """Return the rate at `now_s`; None before there is one."""
        if self._started_s is None or now_s <= self._started_s or not self._sum:
            return None
        window_s = self._smoothing_s * -math.expm1((self._started_s - now_s) / self._smoothing_s)
        return self._sum * math.exp((self._updated_s - now_s) / self._smoothing_s) / window_s


class ProgressLine:
    """Shows progress on standard error during a `with` block; shows nothing where that is no terminal."""

    def __init__(self, doing: str, total: int | None, console: Console | None = None) -> None:
        """`total` is the number of images; None when it is not known."""
        console = console or Console(stderr=True)
        self._images, self._work = SmoothedRate(), SmoothedRate()
        self._work_left: float | None = None
        self._slow: Callable[[], tuple[str, float] | None] = lambda: None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            _StatusColumn(self.status),
            console=console,
            disable=not console.is_terminal,
        )
        self._total, self._ended = total, 0
        self._task = self._bar.add_task(doing, total=total, failed=0)

    def __enter__(self) -> ProgressLine:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(
        self, total: int | None, already_done: int, slow: Callable[[], tuple[str, float] | None] = lambda: None
    ) -> None:
        """Set the number of images, `already_done` ones included, which do not count as speed.

        `slow` returns the image that has been under way for longest, and for how many seconds.
        """
        self._total, self._ended, self._slow = total, already_done, slow
        self._bar.update(self._task, total=total, completed=already_done)

    def show(self, ended: int, failed: int, *, work: float | None = None, work_left: float | None = None) -> None:
        """Show how many images have ended and how many of these failed.

        `work` is what has ended since the last call, in any unit such as pixels, and `work_left` what is still to come;
        the time left is computed from them, else from the number of images.
        """
        now_s = time.monotonic()
        self._images.add(ended - self._ended, now_s)
        if work is not None:
            self._work.add(work, now_s)
        self._work_left = work_left
        self._ended = ended
        self._bar.update(self._task, completed=ended, failed=failed)

    def status(self, now_s: float | None = None) -> str:
        """Return rate, time left and the slow image as one text."""
        now_s = time.monotonic() if now_s is None else now_s
        parts = []
        rate = self._images.per_second(now_s)
        if rate is not None:
            parts.append(f"{rate:.1f} images/s" if rate >= 0.95 else f"{1 / rate:.1f} s an image")
        left_s = self._time_left_s(now_s)
        if left_s is not None:
            parts.append(f"{_clock(left_s)} left")
        slow = self._slow()
        if slow is not None and slow[1] >= SLOW_S:
            parts.append(f"{slow[0]}: {slow[1]:.0f} s so far")
        return ", ".join(parts)

    def _time_left_s(self, now_s: float) -> float | None:
        if self._work_left is not None and (per_second := self._work.per_second(now_s)):
            return self._work_left / per_second
        if self._total is not None and (per_second := self._images.per_second(now_s)):
            return (self._total - self._ended) / per_second
        return None


class _StatusColumn(ProgressColumn):
    def __init__(self, status: Callable[[], str]) -> None:
        super().__init__()
        self._status = status

    def render(self, task: Task) -> Text:  # noqa: ARG002 (rich's signature)
        return Text(self._status())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
