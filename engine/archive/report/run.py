"""What the report page shows of a run, gathered while it goes on."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.archive.manifest import Manifest
from engine.archive.report import ReportKind
from engine.archive.report.gallery import Gallery
from engine.archive.report.page import Failure, ReportData, RunFigures, write_report
from engine.errors import StopRun
from engine.model.card import Card
from engine.records import Failed, Outcome
from engine.system.storage import connect, is_url

FILE_NAME = "report.html"
SAMPLE_PHOTOS = 24
_RATE_EVERY_S = 0.25


class RunReport:
    """Watches a run's outcomes, keeps the photos to show, and writes the page when the run is over."""

    def __init__(self, kind: ReportKind, total: int | None) -> None:
        """`total` photos are expected, None where nobody knows; thumbnails get smaller for many."""
        self.sample = (SAMPLE_PHOTOS if kind == "sample" else None, total)
        """Arguments of its gallery, for those of other processes."""
        self.gallery = Gallery(*self.sample)
        self._rate: list[tuple[float, int]] = [(0.0, 0)]
        self._done = 0
        self._pixels = 0

    def saw(self, outcome: Outcome, seconds: float) -> None:
        """Count `outcome`, which came `seconds` after the run began."""
        if isinstance(outcome, Failed):
            return
        self._done += 1
        self._pixels += outcome.payload.width * outcome.payload.height
        if seconds - self._rate[-1][0] >= _RATE_EVERY_S:
            self._rate.append((seconds, self._done))

    def write(
        self,
        src: str | Path,
        dst: str | Path,
        *,
        skipped: int,
        seconds: float,
        settings: Mapping[str, Any],
        card: Card,
        manifest: Manifest,
        stopped: bool = False,
    ) -> str:
        """Write the page into `dst`, a folder or a URL, and say where it is; raises `StopRun` when it cannot be.

        With `stopped` it says that the run came to no end.
        """
        failures = [Failure(path=key, stage=stage, reason=error) for key, stage, error in manifest.failures()]
        photos = "1 photo" if self._done == 1 else f"{self._done:,} photos"
        ended = time.strftime("%d %B %Y, %H:%M").lstrip("0")
        data = ReportData(
            title=f"{photos}, {card.source_domain} to {card.target_domain}",
            summary=RunFigures(
                source=str(src),
                destination=str(dst),
                finished=f"stopped before its end, {ended}" if stopped else ended,
                translated=self._done,
                failed=len(failures),
                already_there=skipped,
                elapsed_s=seconds,
                megapixels=self._pixels / 1e6,
            ),
            comparisons=self.gallery,
            failures=failures,
            remarks=list(_remarks(manifest.remarks())),
            rate=[*self._rate, (seconds, self._done)],
            settings=settings,
            card={name: value for name, value in asdict(card).items() if name != "pixel_range"},
        )
        try:
            return _place(dst, data)
        except OSError as error:
            raise StopRun(f"The report cannot be written to {dst}: {error.strerror or error}.") from error
        finally:
            self.gallery.close()


def _remarks(noted: Iterable[tuple[str, tuple[str, ...]]]) -> Iterable[Failure]:
    for key, notes in noted:
        for note in notes:
            yield Failure(path=key, reason=note)


def _place(dst: str | Path, data: ReportData) -> str:
    if not is_url(dst):
        write_report(Path(dst) / FILE_NAME, data)
        return str(Path(dst) / FILE_NAME)
    with tempfile.TemporaryDirectory() as folder:
        write_report(Path(folder) / FILE_NAME, data)
        storage = connect(str(dst))
        storage.write(FILE_NAME, (Path(folder) / FILE_NAME).read_bytes())
    return f"{storage.url}/{FILE_NAME}"
