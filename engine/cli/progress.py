"""The line that a terminal shows while images go by: done, failed, images a second, time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressLine:
    """Lives as long as a `with` block; shows nothing where standard error is no terminal."""

    def __init__(self, doing: str, total: int | None) -> None:
        """`total` is None where nobody knows how many images come."""
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(doing, total=total, failed=0, rate="")

    def __enter__(self) -> ProgressLine:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, ended: int, failed: int) -> None:
        """Show how many images have ended so far, and how many of these failed."""
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.1f} images/s" if speed else ""
        self._bar.update(self._task, completed=ended, failed=failed, rate=rate)
