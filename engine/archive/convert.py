"""Translate a whole archive: the function behind `solstice convert`."""

from __future__ import annotations

import hashlib
import json
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.archive.manifest import FOLDER, Manifest
from engine.archive.remote import RemoteSink, remote_manifest
from engine.archive.report import ReportKind
from engine.archive.report.run import RunReport
from engine.archive.sink import ArchiveSink
from engine.archive.source import ArchiveSource
from engine.codec.formats import is_image_name
from engine.config import PipelineConfig
from engine.errors import SetupError, StopRun
from engine.listing import Listing, count_inputs, list_inputs, list_objects
from engine.model.weights import Generator, load_generator
from engine.observe.metrics import STAGES, CombinedMetrics, Metrics, Tally
from engine.pipeline import Pipeline, Translate
from engine.ports import ArchiveOutput
from engine.records import Outcome
from engine.runtime.translator import BatchTranslator
from engine.system.storage import connect, is_url

_NOT_DECIDING = ("workers", "gpu_from_pixels")  # where and how parallel results are encoded, not what they are

_LOCAL_READS = 4
"""Files of a folder read at the same time: one thread reads fewer a second than a GPU translates."""

_REMOTE_READS = 16  # requests under way at once: enough to hide a round trip of 50 ms behind 300 images/s

Progress = Callable[[Outcome | None, int], None]
"""Called after each image with its outcome and the number skipped so far; with None once at the start."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    images: int
    """Inputs found."""
    converted: int
    """Translated and stored by this run."""
    skipped: int
    """Already done by an earlier run."""
    failed: int
    images_per_second: float
    """Converted images over `seconds`."""
    seconds: float
    """From the first input to the last result; loading the model is not in it."""
    backend: str
    """What translated, and why it was chosen."""
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each stage the `seconds` its threads were busy, all together, and the `images` that passed it."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """`path`, `stage` and `error` of each failed input."""
    report: str | None = None
    """Where the report page is."""


def convert(
    src: str | Path,
    dst: str | Path,
    model: str | Path | Generator,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    keep_times: bool = False,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
    translate: Callable[[Generator], Translate] | None = None,
) -> Summary:
    """Translate the images of `src` into the folder `dst`, which mirrors its tree; what is done already is skipped.

    `src` is a folder, an image, a list of paths (.txt), a tar or a zip. `model` is a model's name, its file, or a
    loaded generator. A bad image costs nothing but itself and is listed in the summary. With `keep_times` results
    get their inputs' times of last change; `report` writes a page that shows a sample of the photos, or all. `metrics`
    takes every measurement of the run, such as `engine.observe.prometheus.PrometheusMetrics`.

    Raises `SetupError` when the run cannot start as asked, and `StopRun` when it cannot go on; what was done until
    then is kept, and the next call goes on from there.
    """
    config = config or PipelineConfig()
    listing, read_ahead = open_source(src, dst)
    generator = load_generator(model) if isinstance(model, str | Path) else model
    translator = translate(generator) if translate else BatchTranslator(generator, config.generate)
    backend = translator.reason if isinstance(translator, BatchTranslator) else "given by the caller"
    with begin(
        src, dst, generator, config, keep_times=keep_times, report=report, progress=progress, metrics=metrics
    ) as run:
        sink = open_sink(dst, keep_times=keep_times)
        source = ArchiveSource(
            listing, run.manifest, sink, config.options, run.recipe, overwrite=overwrite, read_ahead=read_ahead
        )
        models = {config.options.model: translator}
        pipeline = Pipeline(source, sink, models, config, run.metrics, run.page.gallery if run.page else None)
        with closing(pipeline.outcomes()) as outcomes:
            run.follow(outcomes, lambda: source.num_skipped)
        return run.summary(source.num_skipped, backend)


class ArchiveRun:
    """What a run keeps of its images while they end: the manifest, counts, and the report page when there is one."""

    def __init__(
        self,
        src: str | Path,
        dst: str | Path,
        generator: Generator,
        config: PipelineConfig,
        manifest: Manifest,
        *,
        page: RunReport | None,
        progress: Progress | None,
        metrics: Metrics | None,
    ) -> None:
        """Note in `manifest` that it begins."""
        settings = json.dumps(recipe_of(config, generator), sort_keys=True)
        self.recipe = hashlib.sha256(settings.encode()).hexdigest()
        """Identifies model and settings."""
        self.manifest = manifest
        self.page = page
        self._tally = Tally()
        self.metrics: Metrics = CombinedMetrics(self._tally, metrics) if metrics else self._tally
        """Takes the measurements of the pipeline."""
        self._src, self._dst = src, dst
        self._card = generator.card
        self._settings = settings
        self._progress = progress
        self._seconds = 0.0
        self._skipped: Callable[[], int] = lambda: 0
        manifest.start_run(settings, self.recipe)

    def follow(self, outcomes: Iterable[Outcome | None], skipped: Callable[[], int]) -> None:
        """Watch outcomes to their end; `skipped` tells how many inputs were already done."""
        self._skipped = skipped
        started_s = time.perf_counter()
        if self._progress:
            self._progress(None, 0)
        for outcome in outcomes:
            if outcome is None:
                continue
            self._seconds = time.perf_counter() - started_s
            if self.page:
                self.page.saw(outcome, self._seconds)
            if self._progress:
                self._progress(outcome, skipped())

    def summary(self, skipped: int, backend: str) -> Summary:
        """Say what was done, and write the page where one is asked for; raises `StopRun` when it cannot be."""
        self.manifest.commit()
        tally, seconds = self._tally, round(self._seconds, 3)  # the rate is that of the seconds shown
        return Summary(
            images=tally.converted + tally.failed + skipped,
            converted=tally.converted,
            skipped=skipped,
            failed=tally.failed,
            images_per_second=round(tally.converted / seconds, 3) if seconds else 0.0,
            seconds=seconds,
            backend=backend,
            stages={
                name: {"seconds": round(tally.stage_seconds[name], 3), "images": tally.stage_images[name]}
                for name in STAGES
                if name in tally.stage_images
            },
            failures=[{"path": key, "stage": stage, "error": error} for key, stage, error in self.manifest.failures()],
            report=None if self.page is None else self._write(self.page, skipped, {"backend": backend}),
        )

    def show_what_is_done(self) -> None:
        """Write the page of a run that was stopped, where one was asked for and as far as that is possible."""
        if self.page is None:
            return
        with suppress(StopRun):  # the run has a reason to end already
            self.manifest.commit()
            self._write(self.page, self._skipped(), {}, stopped=True)

    def _write(self, page: RunReport, skipped: int, facts: dict[str, str], *, stopped: bool = False) -> str:
        self.page = None  # a page is written once, or not at all
        return page.write(
            self._src,
            self._dst,
            skipped=skipped,
            seconds=self._seconds,
            settings={**facts, **json.loads(self._settings)},
            card=self._card,
            manifest=self.manifest,
            stopped=stopped,
        )


@contextmanager
def begin(
    src: str | Path,
    dst: str | Path,
    generator: Generator,
    config: PipelineConfig,
    *,
    keep_times: bool = False,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
) -> Iterator[ArchiveRun]:
    """Begin a run over `src` whose manifest is in `dst`, locked against other runs; raises `SetupError`."""
    if keep_times and is_url(dst):
        raise SetupError(f"{dst} gives its objects times of its own; leave out --times.")
    page = RunReport(report, _expected(src, dst)) if report else None
    with open_manifest(dst) as manifest:
        run = ArchiveRun(src, dst, generator, config, manifest, page=page, progress=progress, metrics=metrics)
        try:
            yield run
        except (KeyboardInterrupt, StopRun):
            run.show_what_is_done()
            raise


def recipe_of(config: PipelineConfig, generator: Generator) -> dict[str, Any]:
    """Everything asked for that decides a result: a change of any of it makes results outdated.

    What `auto` picks is not in it, nor is the backend: all are held to the same result within 40 dB, and a backend that
    has been compiled in the meantime must not make a finished archive start over.
    """
    encode = {name: value for name, value in asdict(config.encode).items() if name not in _NOT_DECIDING}
    return {
        "model": generator.sha256,
        "size": str(config.options.size),
        "detail": config.options.detail,
        "format": config.options.format,
        "precision": config.generate.precision,
        "allow_damaged": config.decode.allow_damaged,
        "encode": encode,
    }


def open_source(src: str | Path, dst: str | Path) -> tuple[Listing, int]:
    """List what is at `src`; gives the listing and how many of its inputs may be read at the same time.

    Raises `SetupError` when there is nothing, or when results would overwrite it.
    """
    if is_url(src):
        return list_objects(connect(str(src))), _REMOTE_READS
    src = Path(src)
    if is_url(dst):
        return list_inputs(src), _local_reads(src)
    dst = Path(dst)
    if dst.exists() and not dst.is_dir():
        raise SetupError(f"The output {dst} is a file; name a folder.")
    if dst.exists() and src.is_dir() and src.samefile(dst):
        raise SetupError("Source and output are the same folder; the originals would be overwritten.")
    return list_inputs(src, skip=dst), _local_reads(src)


def _local_reads(src: Path) -> int:
    """Return how many inputs may be read at the same time; members of a tar or zip only in their order."""
    in_order = src.is_file() and not is_image_name(src.name) and (tarfile.is_tarfile(src) or zipfile.is_zipfile(src))
    return 1 if in_order else _LOCAL_READS


def _expected(src: str | Path, dst: str | Path) -> int | None:
    return None if is_url(src) else count_inputs(Path(src), skip=None if is_url(dst) else Path(dst))


@contextmanager
def open_manifest(dst: str | Path) -> Iterator[Manifest]:
    """Open the manifest of `dst`, locked against other runs; raises `SetupError`."""
    with remote_manifest(connect(str(dst))) if is_url(dst) else Manifest(Path(dst)) as manifest:
        yield manifest


def open_sink(dst: str | Path, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:
    """Open what stores results in `dst`; processes that do so at once name a `part` of the unfinished files each."""
    if is_url(dst):
        return RemoteSink(connect(str(dst)))
    return ArchiveSink(Path(dst), Path(dst) / FOLDER / "partial" / part, keep_times=keep_times)
