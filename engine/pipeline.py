"""The stages in order: source → inspect → decode → batch → generate → restore → encode → sink.

This file alone decides which stage runs in which threads and how far each may run ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.batch import Batcher, Chunk, Chunker
from engine.codec.decode import Decoder, jpeg_device
from engine.codec.detail import restore
from engine.codec.encode import Encoder, encode_device, on_white
from engine.codec.footprint import footprint_bytes
from engine.codec.header import inspect_record
from engine.config import CPU_BATCH, CPU_BATCH_PIXELS, GPU_BATCH, GPU_BATCHES_IN_FLIGHT, PipelineConfig
from engine.errors import SkipImage
from engine.flow import Budget, InProgress, Scope, ahead, in_threads
from engine.observe.metrics import Metrics, NoMetrics, StageName, timed
from engine.observe.profiling import stage_range
from engine.ports import Preview, Sink, Source
from engine.records import Batch, DecodedImage, Encoded, Failed, Inspected, Outcome, Record, Stored
from engine.system.device import gpu_of
from engine.system.memory import available_bytes
from engine.system.threads import keep_to_one_thread

Translate = Callable[[Tensor], Tensor]
"""Map uint8 [N, H, W, 3] to the same shape, as an `engine.runtime.translator.BatchTranslator` does."""


_READ_AHEAD = 4
"""Images that wait, read, for their inspection."""

_GPU_CHUNK_PIXELS = 16_000_000
"""Pixels of a chunk that a GPU decodes: more than on a CPU, because each call has a fixed cost."""

BEFORE_DECODE: tuple[StageName, ...] = ("read", "inspect")
"""Stages that are timed in the records, one image at a time."""


class Pipeline:
    """Translate what a source yields into a sink, with stages overlapped over bounded channels.

    Images overtake each other from the source to their acknowledgement, so a slow one holds back nothing but its own
    thread. Memory is bounded by what the images in flight take, according to their headers.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        models: Mapping[str, Translate],
        config: PipelineConfig | None = None,
        metrics: Metrics | None = None,
        preview: Preview | None = None,
    ) -> None:
        """`models` maps each model name in the records' options to its translator.

        `preview` receives the photos that it wants, before and after translation.
        """
        self._source = source
        self._sink = sink
        self._models = models
        self._config = fitted(config or PipelineConfig())
        self._metrics = metrics or NoMetrics()
        self._preview = preview
        self._decoder = Decoder(self._config.decode, jpeg_device(self._config))
        self._encoder = Encoder(self._config.encode, encode_device(self._config))
        self._budget = Budget(self._config.in_flight_bytes or 0)
        self._batches = InProgress()
        """Batches that wait for the generator or are in it."""
        self._footprints: dict[int, int] = {}  # bytes taken from the budget, by id() of the record's origin

    def run(self) -> None:
        """Translate until the source ends; raises what a stage raised that was not about one image.

        However it ends, every acknowledged image is stored, and no thread is left behind.
        """
        for _ in self.outcomes():
            pass

    def outcomes(self) -> Generator[Outcome | None, None, None]:
        """Run, and yield each image's outcome once it has been acknowledged; None when the source is idle.

        Closing it early drops what is in flight and stops all threads.
        """
        config, scope = self._config, Scope()
        scope.add(self._budget.cancel)
        chunker = Chunker(config.decode)
        batcher = Batcher(
            config.batch,
            pressed=lambda: self._budget.contended,
            generator_idle=lambda: self._batches.is_empty,
        )
        records = ahead(self._source.records(), _READ_AHEAD, "read", scope)
        # mypy joins the unions that records, inspected and batches are to object
        inspected: Generator[Record[Inspected] | Failed | None, None, None] = in_threads(
            self._inspect,  # type: ignore[arg-type]
            records,
            config.decode.workers,
            "inspect",
            depth=config.decode.chunk_images,
            due_in=chunker.due_in,
            scope=scope,
        )
        decoded = in_threads(
            self._decode,
            chunker(inspected),
            config.decode.workers,
            "decode",
            due_in=batcher.due_in,
            scope=scope,
            prepare=keep_to_one_thread,
        )
        batches: Generator[Batch | Failed | None, None, None] = ahead(
            self._counted(batcher(decoded)), 1, "batch", scope
        )
        in_flight = config.generate.batches_in_flight or 1
        translated = in_threads(self._generate, batches, in_flight, "generate", scope=scope)  # type: ignore[arg-type]
        encoded = in_threads(
            self._encode, translated, config.encode.workers, "encode", scope=scope, prepare=keep_to_one_thread
        )
        stored = in_threads(self._store, encoded, config.store.workers, "store", scope=scope)
        with ExitStack() as at_exit:
            for stage in (records, inspected, decoded, batches, translated, encoded, stored):
                at_exit.enter_context(closing(stage))
            at_exit.callback(scope.cancel)  # first, so that closing a stage waits for no item
            for outcomes in stored:
                yield from self._acknowledge(outcomes)

    def _inspect(self, record: Record[bytes] | Failed) -> Record[Inspected] | Failed:
        if isinstance(record, Failed):
            return record
        inspected = inspect_record(record, self._config.decode)
        if isinstance(inspected, Record):
            footprint = footprint_bytes(inspected.payload, inspected.options)
            if footprint > (self._config.max_image_bytes or 0):
                return inspected.failed("inspect", _too_large(inspected, footprint, self._config.max_image_bytes or 0))
            self._budget.take(footprint)
            if footprint > (self._config.in_flight_bytes or 0):
                self._source.checkpoint()  # it goes alone, and what was before it must not be lost with it
            self._footprints[id(inspected.origin)] = footprint
        return inspected

    def _decode(self, chunk: Chunk) -> list[Record[DecodedImage] | Failed]:
        self._observe_stages_before(chunk)
        with self._timed("decode", chunk):
            return self._decoder(chunk)

    def _counted(self, batches: Iterable[Batch | Failed | None]) -> Iterator[Batch | Failed | None]:
        for batch in batches:
            if isinstance(batch, Batch):
                self._batches.enter()
            yield batch

    def _generate(self, batch: Batch | Failed) -> list[Record[DecodedImage] | Failed]:
        if isinstance(batch, Failed):
            return [batch]
        self._metrics.observe("batch_images", len(batch.records))
        self._metrics.observe("batch_wait_seconds", batch.waited_s)
        try:
            with self._timed("generate", batch.records):
                return self._translated(batch)
        finally:
            self._batches.leave()

    def _translated(self, batch: Batch) -> list[Record[DecodedImage] | Failed]:
        try:
            return self._translate(batch)
        except SkipImage as error:
            if len(batch.records) == 1:
                return [batch.records[0].failed("generate", error)]
            # Translate each alone to find out which one the generator refuses.
            return [outcome for record in batch.records for outcome in self._translated(Batch((record,)))]

    def _translate(self, batch: Batch) -> list[Record[DecodedImage] | Failed]:
        translated_NHWC = self._models[batch.model](batch.stacked()).cpu()
        return [
            record.replace(record.payload.translated(pixels_HWC, keep_before=self._shows(record.key)))
            for record, pixels_HWC in zip(batch.records, translated_NHWC, strict=True)
        ]

    def _encode(self, records: list[Record[DecodedImage] | Failed]) -> list[Record[Encoded] | Failed]:
        restored = self._restore(records)
        with self._timed("encode", restored):
            encoded = self._encoder(restored)
            self._show(restored, encoded)
            return encoded

    def _restore(self, records: list[Record[DecodedImage] | Failed]) -> list[Record[DecodedImage] | Failed]:
        """Bring translations back to the size of their photos, where that was asked for."""
        reduced = [r for r in records if isinstance(r, Record) and r.payload.full_HWC is not None]
        if not reduced:
            return records
        with self._timed("restore", reduced):
            return restore(records, keeps=self._shows)

    def _shows(self, key: str) -> bool:
        return self._preview is not None and self._preview.wants(key)

    def _show(self, pictures: list[Record[DecodedImage] | Failed], encoded: list[Record[Encoded] | Failed]) -> None:
        """Hand pictures whose translation could be encoded to the preview."""
        if self._preview is None:
            return
        for record, result in zip(pictures, encoded, strict=True):
            if isinstance(record, Failed) or isinstance(result, Failed):
                continue
            picture = record.payload
            if picture.before_HWC is not None and self._preview.wants(record.key):
                before, after = (on_white(picture, pixels) for pixels in (picture.before_HWC, picture.pixels_HWC))
                self._preview.show(record.key, before, after)

    def _store(self, records: list[Record[Encoded] | Failed]) -> list[Outcome]:
        with self._timed("store", records):
            return self._sink.settle([self._store_one(record) for record in records])

    def _store_one(self, record: Record[Encoded] | Failed) -> Record[Stored] | Failed:
        outcome = record if isinstance(record, Failed) else record.attempt("store", self._sink.store)
        if isinstance(outcome, Failed):
            self._sink.reject(outcome)
        return outcome

    @contextmanager
    def _timed(self, name: StageName, records: Sequence[Record[Any] | Failed]) -> Iterator[None]:
        """Measure one call of a stage, for the metrics and for each of its records."""
        started_s = time.perf_counter()
        with stage_range(name), timed(self._metrics, name, len(records)):
            yield
        seconds = time.perf_counter() - started_s
        for record in records:
            record.timings[name] = seconds

    def _observe_stages_before(self, chunk: Chunk) -> None:
        """Observe the times of reading and inspecting, which were one call for each image."""
        for record in chunk:
            for name in BEFORE_DECODE:
                if name in record.timings:
                    self._metrics.stage(name, record.timings[name], 1)

    def _acknowledge(self, outcomes: list[Outcome] | None) -> Iterator[Outcome | None]:
        if outcomes is None:
            yield None
            return
        for outcome in outcomes:
            self._source.acknowledge(outcome)
            self._budget.give_back(self._footprints.pop(id(outcome.origin), 0))
            self._metrics.outcome(outcome.stage if isinstance(outcome, Failed) else None)
            yield outcome


def fitted(config: PipelineConfig) -> PipelineConfig:
    """Return `config` with its open values chosen for the generator's device; raises `SetupError` as `gpu_of` does."""
    on_gpu = gpu_of(config.generate.device) is not None
    size = config.batch.size or (GPU_BATCH if on_gpu else CPU_BATCH)
    full_pixels = config.batch.full_pixels or (None if on_gpu or config.batch.size else CPU_BATCH_PIXELS)
    in_flight = config.generate.batches_in_flight or (GPU_BATCHES_IN_FLIGHT if on_gpu else 1)
    decode = config.decode
    if on_gpu and decode.jpegs == "auto":
        decode = replace(
            decode,
            chunk_images=max(decode.chunk_images, size),
            chunk_pixels=max(decode.chunk_pixels, _GPU_CHUNK_PIXELS),
        )
    # On a GPU, `memory_bytes` is about the GPU's memory.
    host_bytes = config.generate.memory_bytes if config.generate.memory_bytes and not on_gpu else available_bytes() // 2
    return replace(
        config,
        in_flight_bytes=config.in_flight_bytes or host_bytes // 2,
        max_image_bytes=config.max_image_bytes or host_bytes,
        decode=decode,
        batch=replace(config.batch, size=size, full_pixels=full_pixels),
        generate=replace(config.generate, batches_in_flight=in_flight),
    )


def _too_large(record: Record[Inspected], footprint: int, most: int) -> str:
    image = record.payload
    width, height = record.options.size.target(image.width, image.height)
    return (
        f"{image.width}x{image.height} {image.mode} at {width}x{height} takes about {footprint / 1e6:,.0f} MB of "
        f"memory, over the limit of {most / 1e6:,.0f} MB (--memory raises it)"
    )
