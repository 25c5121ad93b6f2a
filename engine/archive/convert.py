"""Translate a whole archive: the function behind `solstice convert`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from engine.archive.config import ArchiveConfig
from engine.archive.report import ReportKind
from engine.archive.run import Progress, RunRequest, Summary, started_run
from engine.archive.source import ArchiveSource
from engine.config import PipelineConfig
from engine.model.weights import Generator
from engine.observe.metrics import Metrics
from engine.pipeline import Pipeline, Translate
from engine.runtime.translator import BatchTranslator

__all__ = ["Summary", "convert"]

NOTHING_TO_DO = "nothing to translate"
"""Backend in the summary of a run that loads no model, because everything is done."""


def convert(
    src: str | Path,
    dst: str | Path,
    model: str | Path | Generator,
    config: PipelineConfig | None = None,
    *,
    archive: ArchiveConfig | None = None,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
    translate: Callable[[Generator], Translate] | None = None,
) -> Summary:
    """Translate the photos of `src` into `dst`, which mirrors its tree; skip what an earlier run has translated.

    Args:
        src: A folder, an image, a list of paths (.txt), a tar, a zip, or a URL.
        dst: A folder or a URL; a file with the suffix of an image when `src` is one image; a `.tar`.
        model: Name of a model, its file, or a loaded generator.
        config: Settings of the pipeline.
        archive: Which files are taken, and how results are named and stored.
        report: Write a page that shows a `sample` of the photos, or `all`.
        progress: Called when the run starts and after each image.
        metrics: Receives every measurement, such as `engine.observe.prometheus.PrometheusMetrics`.
        translate: Makes what translates from the generator; a `BatchTranslator` by default.

    An image that cannot be translated fails alone and is listed in the summary. Raises `SetupError` when the run cannot
    start as asked, and `StopRun` when it cannot continue; what is done is kept, and the next call continues from there.
    """
    request = RunRequest.of(src, dst, model, config, archive, report=report, progress=progress, metrics=metrics)
    generator = request.generator
    with started_run(request) as run:
        config, plan = run.config, run.plan
        if not plan.todo:
            run.start()
            return run.summary(NOTHING_TO_DO)
        translator = translate(generator) if translate else BatchTranslator(generator, config.translator)
        source = ArchiveSource(
            plan.todo,
            run.manifest.record,
            config.options,
            run.recipe,
            max_bytes=request.archive.max_bytes,
            read_ahead=plan.read_ahead,
        )
        models = {config.options.model: translator}
        pipeline = Pipeline(source, run.sink, models, config, run.metrics, run.page.gallery if run.page else None)
        run.start()
        with closing(pipeline.outcomes()) as outcomes:
            run.follow(outcomes, source.oldest_under_way)
        return run.summary(translator.reason if isinstance(translator, BatchTranslator) else "given by the caller")
