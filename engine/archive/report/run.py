"""The report page of a run: gathered while the run goes on, written when it is over."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.archive.manifest import Manifest
from engine.archive.plan import ArchivePlan
from engine.archive.report import ReportKind
from engine.archive.report.earlier import add_earlier_photos
from engine.archive.report.gallery import Gallery
from engine.archive.report.page import Links, Remark, ReportData, RunFigures, write_report
from engine.errors import StopRun
from engine.listing import Input, printable
from engine.model.card import Card
from engine.records import Failed, Outcome
from engine.system.storage import connect, is_url

SAMPLE_PHOTOS = 24
GALLERY_FILE = "gallery.sqlite"
"""File beside the manifest that keeps the thumbnails for later runs."""
_RATE_EVERY_S = 0.25


class RunReport:
    """Gathers what a page shows while a run goes on, and writes the page when the run is over."""

    def __init__(self, kind: ReportKind, plan: ArchivePlan, state_folder: Path | None) -> None:
        """Comparisons of earlier runs are kept in `state_folder`; None keeps none."""
        self.sample = (SAMPLE_PHOTOS if kind == "sample" else None, plan.num_inputs)
        """Arguments of the gallery, also of those in other processes."""
        self.gallery = Gallery(*self.sample, None if state_folder is None else state_folder / GALLERY_FILE)
        self.gallery.restrict_to(plan.done)
        self._plan = plan
        self._rate: list[tuple[float, int]] = [(0.0, 0)]
        self._translated = 0
        self._pixels = 0

    def count(self, outcome: Outcome, seconds: float) -> None:
        """Count `outcome`, which came `seconds` after the run started."""
        if isinstance(outcome, Failed):
            return
        self._translated += 1
        self._pixels += outcome.payload.width * outcome.payload.height
        if seconds - self._rate[-1][0] >= _RATE_EVERY_S:
            self._rate.append((seconds, self._translated))

    def write(
        self,
        page: str,
        results: Path | None,
        *,
        src: str | Path,
        dst: str | Path,
        linked: bool,
        seconds: float,
        settings: Mapping[str, Any],
        card: Card,
        manifest: Manifest,
        stopped: bool = False,
    ) -> str:
        """Write the page of the whole archive to `page`, a path or a URL, and return that.

        `results` is the local folder with the results, None for a store. With `linked` photos link to their files.
        With `stopped` it says that the run did not reach its end. Raises `StopRun` when it cannot be written.
        """
        inputs = {printable(item.key): item for item in self._plan.inputs_by_output.values()}
        outputs = {key: output for key, output in manifest.outputs() if key in inputs}
        failures = [
            Remark(path=key, stage=stage, text=error)
            for key, stage, error in manifest.failures(all_runs=True)
            if key in inputs
        ]
        unreadable = 0 if stopped or results is None else self._add_earlier(results, inputs, outputs)
        photos = "1 photo" if len(outputs) == 1 else f"{len(outputs):,} photos"
        ended = time.strftime("%d %B %Y, %H:%M").lstrip("0")
        data = ReportData(
            title=f"{photos}, {card.source_domain} to {card.target_domain}",
            summary=RunFigures(
                source=str(src),
                destination=str(dst),
                finished=f"stopped before its end, {ended}" if stopped else ended,
                translated=len(outputs),
                in_this_run=self._translated,
                failed=len(failures),
                waiting=len(inputs) - len(outputs) - len(failures),
                elapsed_s=seconds,
                megapixels=self._pixels / 1e6,
            ),
            comparisons=self.gallery,
            links={key: links_of(inputs[key], output) for key, output in outputs.items()} if linked else {},
            unreadable=unreadable,
            failures=failures,
            remarks=[
                Remark(path=key, text=note)
                for key, notes in manifest.remarks(all_runs=True)
                if key in outputs
                for note in notes
            ],
            left_out=dict(sorted(self._plan.left_out.items(), key=lambda item: -item[1])),
            rate=[*self._rate, (seconds, self._translated)],
            settings=settings,
            card={name: value for name, value in asdict(card).items() if name != "pixel_range"},
        )
        try:
            _write_to(page, data)
            return page
        except OSError as error:
            raise StopRun(f'The report cannot be written to "{page}": {error.strerror or error}.') from error
        finally:
            self.gallery.close()

    def _add_earlier(self, dst: Path, inputs: Mapping[str, Input], outputs: Mapping[str, str]) -> int:
        """Add photos that earlier runs translated without a page; return how many cannot be read."""
        return add_earlier_photos(
            self.gallery,
            {
                key: (inputs[key].read, (dst / outputs[key]).read_bytes)
                for key in map(printable, self._plan.done)
                if key in outputs
            },
        )


def links_of(item: Input, output: str) -> Links:
    """Return the links of one photo, for a page in the output folder."""
    return Links(result=quote(output), original=None if item.path is None else item.path.absolute().as_uri())


def _write_to(page: str, data: ReportData) -> None:
    if not is_url(page):
        write_report(Path(page), data)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "report.html"
        write_report(local, data)
        url, name = page.rsplit("/", 1)
        connect(url).write(name, local.read_bytes())
