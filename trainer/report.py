"""Report of a running training: a log file, TensorBoard, a progress line, sheets and loss curves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard.writer import SummaryWriter

from engine.codec.arrays import Pixels
from trainer.sheets import draw_curves, save_sheet

LOG_NAME = "losses.jsonl"


class TrainingReport:
    """Writes into the folder `run`; use as a context manager."""

    def __init__(
        self,
        run: Path,
        *,
        steps_done: int,
        steps: int,
        steps_per_epoch: int,
        pairs_per_step: int,
        measure_ceiling: Callable[[], float],
    ) -> None:
        """Continue after `steps_done` of `steps` steps; later entries, of a run that broke off, are dropped.

        `measure_ceiling` measures the pairs per second that the machine's matrix rate would allow.
        """
        self._measure_ceiling = measure_ceiling
        self._ceiling_pairs_per_s = measure_ceiling()
        self._run = run
        self._steps_per_epoch = steps_per_epoch
        self._pairs_per_step = pairs_per_step
        _cut_log(run / LOG_NAME, steps_done)
        self._log = (run / LOG_NAME).open("a")
        self._board = SummaryWriter(str(run), purge_step=steps_done)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]:.2f}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[losses]}"),
            console=Console(stderr=True),
            # Where stderr is a file, each reading is a line of its own instead of a moving bar.
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._progress.add_task("", total=steps, completed=steps_done, epoch=0.0, speed="", losses="")
        self._clock = (time.monotonic(), steps_done)

    def __enter__(self) -> TrainingReport:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._board.close()
        self._log.close()

    def losses(self, steps_done: int, losses: Mapping[str, float], rate: float) -> None:
        """Report the losses after `steps_done` steps, at learning rate `rate`."""
        now, (then, steps_then) = time.monotonic(), self._clock
        self._clock = (now, steps_done)
        speed = (steps_done - steps_then) * self._pairs_per_step / (now - then)
        epoch = steps_done / self._steps_per_epoch
        share = self._share_of_ceiling(speed)
        entry = {"step": steps_done, "epoch": round(epoch, 4), "rate": rate, "pairs_per_s": round(speed, 3)}
        scalars = {**losses, "rate": rate, "pairs_per_s": speed}
        shown = f"{speed:.2f} pairs/s"
        if share is not None:
            entry["share_of_matrix_rate"] = round(share, 3)
            scalars["share_of_matrix_rate"] = share
            shown += f" ({share:.0%} of the matrix rate)"
        self._log.write(json.dumps({**entry, **{name: round(loss, 5) for name, loss in losses.items()}}) + "\n")
        self._log.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, steps_done)
        text = " ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
        self._progress.update(self._task, completed=steps_done, epoch=epoch, speed=shown, losses=text)
        if self._progress.disable:
            self._progress.console.print(f"epoch {epoch:.2f} step {steps_done} {shown} {text}", soft_wrap=True)

    def _share_of_ceiling(self, pairs_per_s: float) -> float | None:
        """Return the share of the ceiling, None if the ceiling cannot be right.

        A ceiling that was measured while other processes used the machine is too low: measure it again when a run is
        faster, and keep the highest.
        """
        if pairs_per_s > self._ceiling_pairs_per_s:
            self._ceiling_pairs_per_s = max(self._ceiling_pairs_per_s, self._measure_ceiling())
        share = pairs_per_s / self._ceiling_pairs_per_s
        return share if share <= 1 else None

    def sheet(self, steps_done: int, rows: list[list[Pixels]]) -> None:
        """Write a sheet of photos and translations as PNG and to TensorBoard."""
        name = f"epoch-{steps_done / self._steps_per_epoch:06.2f}.png"
        image = save_sheet(self._run / "sheets" / name, rows)
        self._board.add_image("sheet", image, steps_done, dataformats="HWC")

    def curves(self) -> None:
        """Draw all losses of the log over the epochs to `losses.png`."""
        draw_curves(self._run / "losses.png", read_log(self._run))


class NullReport:
    """A `TrainingReport` that writes nothing."""

    def __enter__(self) -> NullReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def losses(self, steps_done: int, losses: Mapping[str, float], rate: float) -> None:
        """Do nothing."""

    def sheet(self, steps_done: int, rows: list[list[Pixels]]) -> None:
        """Do nothing."""

    def curves(self) -> None:
        """Do nothing."""


def read_log(run: Path) -> list[dict[str, float]]:
    """Read the log of the folder `run`, without a half-written last line."""
    entries = []
    for line in (run / LOG_NAME).read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _cut_log(path: Path, steps_done: int) -> None:
    if not path.exists():
        return
    kept = [entry for entry in read_log(path.parent) if entry["step"] <= steps_done]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
