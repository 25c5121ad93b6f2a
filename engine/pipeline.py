"""The arrow in code: source → decode → batch → generate → encode → sink.

The only file that knows which stage runs in which thread and how far each may run ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from engine.batch import Batcher
from engine.codec.decode import Decoder, jpeg_device
from engine.codec.detail import restore
from engine.codec.encode import Encoder, encode_device, on_white
from engine.codec.header import Chunk, chunks
from engine.config import CPU_BATCH, GPU_BATCH, GPU_BATCHES_IN_FLIGHT, PipelineConfig
from engine.errors import SkipImage
from engine.flow import ahead, in_threads
from engine.observe.metrics import Metrics, NoMetrics, StageName, timed
from engine.observe.profiling import stage_range
from engine.ports import Preview, Sink, Source
from engine.records import Batch, Encoded, Failed, Outcome, Picture, Record, Stored
from engine.system.device import gpu_of

Translate = Callable[[Tensor], Tensor]
"""uint8 [N, H, W, 3] to the same, such as an `engine.runtime.translator.BatchTranslator`."""


# Of a chunk that a GPU decodes: a call to it has a price of its own, so it takes more at once than a CPU's.
_GPU_CHUNK_PIXELS = 16_000_000

BEFORE_DECODE: tuple[StageName, ...] = ("read", "inspect")
"""Stages that the source and the inspection time themselves, in the records."""


class Pipeline:
    """Translate what a source gives into a sink, stages overlapped over bounded queues."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        models: Mapping[str, Translate],
        config: PipelineConfig | None = None,
        metrics: Metrics | None = None,
        preview: Preview | None = None,
    ) -> None:
        """`models` gives for each model name in the records' options what translates it.

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

    def run(self) -> None:
        """Translate until the source ends; raises what a stage raised that was not about one image.

        However it ends, every acknowledged image is stored, and no thread is left behind.
        """
        for _ in self.outcomes():
            pass

    def outcomes(self) -> Generator[Outcome | None, None, None]:
        """Run, and give each image's outcome once it has been acknowledged; None when the source is idle.

        Closing it early drops what is under way and stops all threads.
        """
        config = self._config
        inspected = ahead(chunks(self._source.records(), config.decode), 1, "read")
        decoded = in_threads(self._decode, inspected, config.decode.workers, "decode")
        in_flight = config.generate.batches_in_flight or 1
        batches: Iterator[Batch | Failed | None] = ahead(Batcher(config.batch)(decoded), 1, "batch")
        # mypy joins the union of what a batcher gives to object
        translated = in_threads(self._generate, batches, in_flight, "generate")  # type: ignore[arg-type]
        encoded = in_threads(self._encode, translated, config.encode.workers, "encode")
        stored = in_threads(self._store, encoded, config.store.workers, "store")
        with closing(stored):
            for outcomes in stored:
                yield from self._acknowledge(outcomes)

    def _decode(self, chunk: Chunk) -> list[Record[Picture] | Failed]:
        self._tell_what_came_before(chunk)
        with self._timed("decode", chunk):
            return self._decoder(chunk)

    def _generate(self, batch: Batch | Failed) -> list[Record[Picture] | Failed]:
        if isinstance(batch, Failed):
            return [batch]
        self._metrics.observe("batch_images", len(batch.records))
        self._metrics.observe("batch_wait_seconds", batch.waited_s)
        with self._timed("generate", batch.records):
            return self._translated(batch)

    def _translated(self, batch: Batch) -> list[Record[Picture] | Failed]:
        try:
            return self._translate(batch)
        except SkipImage as error:
            if len(batch.records) == 1:
                return [batch.records[0].failed("generate", error)]
            # Whose fault it is shows when each goes alone.
            return [outcome for record in batch.records for outcome in self._translated(Batch((record,)))]

    def _translate(self, batch: Batch) -> list[Record[Picture] | Failed]:
        translated_NHWC = self._models[batch.model](batch.stacked()).cpu()
        return [
            record.replace(record.payload.translated(pixels_HWC, keep_before=self._shows(record.key)))
            for record, pixels_HWC in zip(batch.records, translated_NHWC, strict=True)
        ]

    def _encode(self, records: list[Record[Picture] | Failed]) -> list[Record[Encoded] | Failed]:
        with self._timed("encode", records):
            restored = restore(records)
            encoded = self._encoder(restored)
            self._show(restored, encoded)
            return encoded

    def _shows(self, key: str) -> bool:
        return self._preview is not None and self._preview.wants(key)

    def _show(self, pictures: list[Record[Picture] | Failed], encoded: list[Record[Encoded] | Failed]) -> None:
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

    def _tell_what_came_before(self, chunk: Chunk) -> None:
        """Give the metrics the times that reading and inspecting took: each image was a call of its own."""
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
            self._metrics.outcome(outcome.stage if isinstance(outcome, Failed) else None)
            yield outcome


def fitted(config: PipelineConfig) -> PipelineConfig:
    """Fill in what was left open, for the device that the generator runs on; raises `SetupError` as `gpu_of`."""
    on_gpu = gpu_of(config.generate.device) is not None
    size = config.batch.size or (GPU_BATCH if on_gpu else CPU_BATCH)
    in_flight = config.generate.batches_in_flight or (GPU_BATCHES_IN_FLIGHT if on_gpu else 1)
    decode = config.decode
    if on_gpu and decode.jpegs == "auto":
        decode = replace(
            decode,
            chunk_images=max(decode.chunk_images, size),
            chunk_pixels=max(decode.chunk_pixels, _GPU_CHUNK_PIXELS),
        )
    return replace(
        config,
        decode=decode,
        batch=replace(config.batch, size=size),
        generate=replace(config.generate, batches_in_flight=in_flight),
    )
