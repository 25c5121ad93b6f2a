"""One run over an archive: its plan, its manifest, what is counted while images end, and its summary."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import torch

from engine.archive.config import ArchiveConfig
from engine.archive.destination import Destination, open_destination
from engine.archive.manifest import EarlierRuns, Manifest
from engine.archive.pages import with_all_pages
from engine.archive.plan import ArchivePlan, make_plan
from engine.archive.report import ReportKind
from engine.archive.report.run import RunReport
from engine.archive.sidecars import copy_sidecars
from engine.codec.formats import output_name
from engine.config import PipelineConfig
from engine.errors import SetupError, SkipImage, StopRun
from engine.listing import LIST_SUFFIXES, Inventory, list_inputs, list_objects, printable
from engine.listing.left_out import require_inputs
from engine.model.weights import Generator, load_generator
from engine.observe.metrics import STAGES, CombinedMetrics, Metrics, Tally
from engine.ports import ArchiveOutput
from engine.records import Outcome
from engine.runtime.tiled.translate import require_memory
from engine.system.storage import connect, is_url

SMALLEST_SIDE = 16
"""Pixels of the smallest photo that a generator translates."""

_PIXELS_PER_IMAGE = 512 * 512
"""Assumed working size where it depends on the photo."""

_NOT_DECIDING = ("workers", "gpu_from_pixels")  # where and how parallel results are encoded, not what they are


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """What a progress display can show besides the outcomes."""

    num_inputs: int
    """Inputs found, those that are done already included."""
    num_skipped: int
    """Inputs that are done already."""
    num_bytes: int
    """Size of the inputs to translate, as far as it is known."""
    state_folder: Path | None = None
    """Local folder beside the manifest that outlives the run, for logs; None where there is none."""
    oldest_under_way: Callable[[], tuple[str, float] | None] = lambda: None
    """Returns the key of the input that has been under way for longest, and for how many seconds."""


Progress = Callable[[Outcome | None, RunProgress], None]
"""Called with None when the run has been planned, before a model is loaded, and with each outcome."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did."""

    images: int
    """Inputs found."""
    converted: int
    """Translated and stored by this run."""
    skipped: int
    """Translated by an earlier run."""
    failed: int
    images_per_second: float
    """Converted images over `seconds`."""
    seconds: float
    """From the first input to the last result, without loading the model."""
    backend: str
    """What translated, and why it was chosen."""
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each stage the `seconds` that its threads were busy, added up, and the `images` that passed it."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """`path`, `stage` and `error` of each failed input."""
    remarks: list[dict[str, str]] = field(default_factory=list)
    """`path` and `remark` of each converted input with something to know; one item for each remark."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Result of each input of this run whose own name belongs to another one."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of files and folders that are no inputs, by kind: a suffix such as `.mov`, `hidden`, `@eaDir/`, …"""
    sidecars: int = 0
    """Sidecars copied."""
    output: str = ""
    """Where the results are: a folder, a file, a URL, or `photos-00000.tar to photos-00007.tar`."""
    report: str | None = None
    """Path or URL of the report page."""


def load_model(model: str | Path | Generator, src: str | Path) -> Generator:
    """Return the generator; before it is loaded, raise `SetupError` when there is no source at all."""
    if not isinstance(model, str | Path):
        return model
    if not is_url(src) and not os.path.lexists(src):
        raise SetupError(f'"{src}" does not exist.')
    return load_generator(model)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is asked to do."""

    src: str | Path
    dst: str | Path
    generator: Generator
    config: PipelineConfig
    archive: ArchiveConfig
    report: ReportKind | None = None
    progress: Progress | None = None
    metrics: Metrics | None = None

    def __post_init__(self) -> None:
        for name in ("src", "dst"):  # a local URL is a path
            value = str(getattr(self, name))
            if value.startswith("file://"):
                object.__setattr__(self, name, url2pathname(value.removeprefix("file://")))

    @classmethod
    def of(
        cls,
        src: str | Path,
        dst: str | Path,
        model: str | Path | Generator,
        config: PipelineConfig | None = None,
        archive: ArchiveConfig | None = None,
        *,
        report: ReportKind | None = None,
        progress: Progress | None = None,
        metrics: Metrics | None = None,
    ) -> RunRequest:
        """Load the model and use defaults for the settings that are None."""
        return cls(
            src=src,
            dst=dst,
            generator=load_model(model, src),
            config=config or PipelineConfig(),
            archive=archive or ArchiveConfig(),
            report=report,
            progress=progress,
            metrics=metrics,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes of a result."""
        return recipe_of(self.config, self.generator)

    @property
    def recipe(self) -> str:
        """A hash of `settings`."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def source(self) -> str:
        """Name of the source, by which another archive is noticed."""
        if is_url(self.src):
            return connect(str(self.src)).url  # without a password
        path = Path(self.src)
        return os.getcwd() if path.suffix.lower() in LIST_SUFFIXES else str(path.resolve())  # noqa: PTH109


class ArchiveRun:
    """A run that has been planned: collects the outcomes for the manifest, the progress display and the report."""

    def __init__(
        self, request: RunRequest, destination: Destination, manifest: Manifest, sink: ArchiveOutput, plan: ArchivePlan
    ) -> None:
        self.destination = destination
        self.manifest = manifest
        self.sink = sink
        self.plan = plan
        self.recipe = request.recipe
        """Hash of model and settings."""
        self.config = _with_expected_pixels(request.config, len(plan.todo))
        """Settings of the pipeline, with the amount of work filled in."""
        self._request = request
        self._tally = Tally()
        self.metrics: Metrics = CombinedMetrics(self._tally, request.metrics) if request.metrics else self._tally
        """Receives the measurements of the pipeline."""
        self.page = RunReport(request.report, plan, destination.state_folder) if request.report else None
        self._seconds = 0.0
        settings = {
            **request.settings,
            "model_name": request.generator.card.name,
            "source": request.source,
        }
        self._settings = settings
        self._created_s = time.time()
        self._noted: dict[int, tuple[str, float]] = {}
        self._under_way: Callable[[], tuple[str, float] | None] = self._oldest_noted
        self._progress = RunProgress(
            num_inputs=plan.num_inputs,
            num_skipped=plan.num_skipped,
            num_bytes=plan.num_bytes,
            state_folder=destination.state_folder,
            oldest_under_way=lambda: self._under_way(),
        )
        if request.progress:
            request.progress(None, self._progress)

    def start(self) -> None:
        """Record in the manifest that the run starts; call it before the first result is stored."""
        self.manifest.start_run(json.dumps(self._settings, sort_keys=True), self.recipe, self._created_s)

    def follow(
        self, outcomes: Iterable[Outcome | None], under_way: Callable[[], tuple[str, float] | None] | None = None
    ) -> None:
        """Consume all outcomes.

        `under_way` returns the oldest unfinished input (see `RunProgress`); None for what `note_under_way` was told.
        """
        self._under_way = under_way or self._oldest_noted
        started_s = time.perf_counter()
        for outcome in outcomes:
            if outcome is None:
                continue
            self._seconds = time.perf_counter() - started_s
            if self.page:
                self.page.count(outcome, self._seconds)
            if self._request.progress:
                self._request.progress(outcome, self._progress)

    def note_under_way(self, worker: int, key: str | None, seconds: float) -> None:
        """Note the input that a worker, any number, has been working on for longest; None for none that takes long."""
        if key is None:
            self._noted.pop(worker, None)
        else:
            self._noted[worker] = key, time.monotonic() - seconds

    def _oldest_noted(self) -> tuple[str, float] | None:
        oldest = min(list(self._noted.values()), key=lambda noted: noted[1], default=None)
        return None if oldest is None else (oldest[0], time.monotonic() - oldest[1])

    def summary(self, backend: str) -> Summary:
        """Finish the output and return what was done; raise `StopRun` when a file cannot be written."""
        self.manifest.commit()
        num_sidecars = 0
        if self._request.archive.sidecars:
            num_sidecars = copy_sidecars(self.plan, self.sink, self._request.archive)
        else:
            self.plan.leave_out_sidecars()
        tally, seconds = self._tally, round(self._seconds, 3)  # the rate is that of the seconds shown
        return Summary(
            images=tally.converted + tally.failed + self.plan.num_skipped,
            converted=tally.converted,
            skipped=self.plan.num_skipped,
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
            remarks=[{"path": key, "remark": note} for key, notes in self.manifest.remarks() for note in notes],
            renamed={printable(planned.item.key): planned.output for planned in self.plan.renamed},
            left_out=dict(sorted(self.plan.left_out.items())),
            sidecars=num_sidecars,
            report=None if self.page is None else self._write_page(self.page, {"backend": backend}),
            output=self.destination.finish(self.plan),  # last, because the page reads results
        )

    def write_page_of_stopped_run(self) -> None:
        """Write the report page of what is done, if one was asked for and as far as that is possible."""
        if self.page is None:
            return
        with suppress(StopRun):  # the run already ends with another error
            self.manifest.commit()
            self._write_page(self.page, {}, stopped=True)

    def _write_page(self, page: RunReport, facts: dict[str, str], *, stopped: bool = False) -> str:
        self.page = None  # written once at most
        assert self.destination.page is not None, "required before the run starts"
        return page.write(
            self.destination.page,
            self.destination.results,
            src=self._request.src,
            dst=self._request.dst,
            linked=self.destination.state_folder is not None,
            seconds=self._seconds,
            settings={**facts, **self._settings},
            card=self._request.generator.card,
            manifest=self.manifest,
            stopped=stopped,
        )


@contextmanager
def started_run(request: RunRequest) -> Iterator[ArchiveRun]:
    """List the source, lock the manifest of the output, plan the run, and start it for a `with` block.

    Raises `SetupError` when there is nothing to translate or the run cannot start as asked.
    """
    destination = open_destination(request.src, request.dst, request.archive)
    if request.report is not None and destination.page is None:
        raise SetupError(f'--report needs a folder as output, and "{request.dst}" is a file.')
    inventory = open_source(request.src, request.dst, request.archive)
    with destination.manifest() as manifest:
        sink = destination.sink(keep_times=request.archive.keep_times)
        plan = planned(request, destination, inventory, manifest.earlier_runs(), sink)
        run = ArchiveRun(request, destination, manifest, sink, plan)
        try:
            yield run
        except (KeyboardInterrupt, StopRun):
            run.write_page_of_stopped_run()
            raise
        finally:
            sink.close()


def planned(
    request: RunRequest,
    destination: Destination,
    inventory: Inventory,
    earlier: EarlierRuns,
    sink: ArchiveOutput,
    *,
    writing: bool = True,
) -> ArchivePlan:
    """Return the plan of a run; raise `SetupError` when it would replace the results of another model or source.

    Without `writing`, nothing is created in the output.
    """
    _require_same_model(request, earlier)
    _require_memory(request)
    _require_one_file(request, destination, inventory)
    return make_plan(
        inventory,
        earlier,
        sink,
        request.config.options,
        request.recipe,
        request.archive,
        source=request.source,
        fold=destination.fold(writing=writing),
        fixed_output=destination.fixed_output,
    )


def _require_same_model(request: RunRequest, earlier: EarlierRuns) -> None:
    before = earlier.settings.get("model")
    if request.archive.overwrite or before in (None, request.generator.sha256) or not earlier.num_done:
        return
    name_before = earlier.settings.get("model_name") or f"with checksum {before[:12]}"
    name = request.generator.card.name
    if name == name_before:
        name, name_before = f"{name} ({request.generator.sha256[:12]})", f"{name} ({before[:12]})"
    raise SetupError(
        f'"{request.dst}" holds {earlier.num_done:,} results of the model {name_before}, which those of {name} would '
        "replace; choose another output folder, or --overwrite to replace them."
    )


def _require_memory(request: RunRequest) -> None:
    """Raise `SetupError` when the memory asked for is too little for the smallest photo, even in tiles."""
    budget_bytes = request.config.generate.memory_bytes
    if budget_bytes is None:
        return
    size = request.config.options.size
    arch = request.generator.module.arch
    width, height = (-(-(side or SMALLEST_SIDE) // arch.stride) * arch.stride for side in (size.width, size.height))
    try:
        require_memory(arch, height, width, torch.bfloat16, budget_bytes=budget_bytes)
    except SkipImage as error:
        raise SetupError(f"--memory is too little: {str(error)[0].lower()}{str(error)[1:]}") from None


def _require_one_file(request: RunRequest, destination: Destination, inventory: Inventory) -> None:
    if destination.fixed_output is None:
        return
    if len(inventory) > 1:
        raise SetupError(f'"{request.src}" has {len(inventory)} pages; name a folder for the results.')
    asked, named = request.config.options.format, output_name(destination.fixed_output, "keep")[1]
    if asked not in ("keep", named):
        raise SetupError(f'--format {asked} does not fit the name "{destination.fixed_output}"; leave one of them out.')


def _with_expected_pixels(config: PipelineConfig, num_images: int) -> PipelineConfig:
    """Fill in how many pixels the generator will translate, unless the caller has."""
    if config.generate.expected_pixels is not None:
        return config
    area = config.options.size.width * config.options.size.height or _PIXELS_PER_IMAGE
    return replace(config, generate=replace(config.generate, expected_pixels=num_images * area))


def recipe_of(config: PipelineConfig, generator: Generator) -> dict[str, Any]:
    """Return everything asked for that decides a result: a change of any of it makes results outdated.

    What `auto` picks is not part of it, nor is the backend: all are held to the same result within 40 dB, and a backend
    that has been compiled in the meantime must not make a finished archive start over.
    """
    encode = {name: value for name, value in asdict(config.encode).items() if name not in _NOT_DECIDING}
    return {
        "model": generator.sha256,
        "size": str(config.options.size),
        "detail": config.options.detail,
        **({"depth": 16} if config.options.depth == 16 else {}),
        "format": config.options.format,
        "precision": config.generate.precision,
        "allow_damaged": config.decode.allow_damaged,
        "encode": encode,
    }


def open_source(src: str | Path, dst: str | Path, archive: ArchiveConfig) -> Inventory:
    """List what is at `src`; raise `SetupError` when there is nothing to translate."""
    if is_url(src):
        inventory = list_objects(connect(str(src)), archive.selection)
    else:
        inventory = list_inputs(Path(src), skip=None if is_url(dst) else Path(dst), selection=archive.selection)
    require_inputs(inventory, src)
    return with_all_pages(inventory) if archive.pages == "all" else inventory
