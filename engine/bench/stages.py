"""Each stage of the pipeline alone on the photos of one workload, alternated with what limits it.

A stage runs in as many threads as the pipeline gives it. Its ceiling is the same work done by the library or the
hardware with nothing around it: libjpeg-turbo for decoding and encoding, the trunk's convolution for the generator, a
memory copy of the photo for the guided detail, a plain write for storing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.batch import images_of_full
from engine.bench.ceilings import Machine, file_write_per_s, generator_gflop, jpeg_decode_per_s, jpeg_encode_per_s
from engine.bench.config import Effort, Workload
from engine.bench.generator import default_batch
from engine.bench.photos import Scenes
from engine.bench.timing import Spread, alternate, rate
from engine.codec.decode import Decoder, jpeg_device
from engine.codec.detail import restore
from engine.codec.encode import Encoder, encode_device
from engine.codec.header import inspect
from engine.config import PipelineConfig
from engine.errors import StopRun
from engine.pipeline import fitted
from engine.records import Batch, Failed, Record
from engine.runtime.rates import batches_in_flight_for
from engine.runtime.translator import BatchTranslator
from engine.system.files import write_atomically
from engine.system.threads import keep_to_one_thread

CEILINGS = {
    "decode": "libjpeg-turbo",
    "generate": "the trunk's convolution",
    "restore": "a memory copy",
    "encode": "libjpeg-turbo",
    "store": "a plain write",
}
"""What limits each stage; reading a header has no ceiling."""


@dataclass(frozen=True)
class Measured:
    """One stage of one workload."""

    name: str
    threads: int
    images_per_s: Spread
    ceiling_images_per_s: Spread | None

    def to_document(self, workload: Workload) -> dict[str, Any]:
        """Return rates, the ceiling and the share of it."""
        ceiling = self.ceiling_images_per_s
        return {
            "stage": self.name,
            "threads": self.threads,
            "images_per_s": self.images_per_s.to_document(),
            "mp_per_s": self.images_per_s.scaled(workload.megapixels).to_document(),
            "ceiling": CEILINGS.get(self.name),
            "ceiling_images_per_s": None if ceiling is None else ceiling.to_document(),
            "share_of_ceiling": None if ceiling is None else self.images_per_s.over(ceiling).to_document(),
        }


def measure_stages(
    workload: Workload,
    scenes: Scenes,
    translator: BatchTranslator,
    machine: Machine,
    config: PipelineConfig,
    effort: Effort,
) -> list[Measured]:
    """Measure all stages of `workload`; raises `StopRun` when the pipeline refuses one of its photos."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Stages(workload, scenes, translator, machine, config, effort, Path(scratch))
        stages, ceilings = bench.stages(), bench.ceilings()
        works = {name: work for name, (work, _) in stages.items()}
        rates = alternate(works | {f"ceiling of {name}": work for name, work in ceilings.items()}, effort.rounds)
    return [
        Measured(name, threads, rates[name], rates.get(f"ceiling of {name}")) for name, (_, threads) in stages.items()
    ]


class _Stages:
    """Payloads as each stage receives them, made once, and the measurements over them."""

    def __init__(
        self,
        workload: Workload,
        scenes: Scenes,
        translator: BatchTranslator,
        machine: Machine,
        config: PipelineConfig,
        effort: Effort,
        scratch: Path,
    ) -> None:
        self._workload, self._machine, self._scratch = workload, machine, scratch
        self._config = fitted(config)
        self._effort_s = effort.measured_s
        self._translator = translator
        self._decoder = Decoder(self._config.decode, jpeg_device(self._config))
        self._encoder = Encoder(self._config.encode, encode_device(self._config))
        count = workload.different
        self._jpegs = [scenes.jpeg(number, workload.width, workload.height) for number in range(count)]
        options = workload.options
        self._inspected = [
            Record(key=f"{number}.jpg", payload=inspect(jpeg, self._config.decode.max_pixels), options=options)
            for number, jpeg in enumerate(self._jpegs)
        ]
        self._decoded = _all_well(self._decoder(list(self._inspected)))
        width, height = workload.working_size
        together = min(count, images_of_full(self._config.batch, width * height))
        self._batch_NHWC = Batch(tuple(self._decoded[:together])).stacked()
        # A stage's rate depends on the size of what it is given, not on what it shows: photos stand in for results.
        self._translated = [
            record.replace(record.payload.translated(record.payload.pixels_HWC)) for record in self._decoded
        ]
        self._restored = _all_well(restore(list(self._translated)))
        self._encoded = [record.payload.data for record in _all_well(self._encoder(list(self._restored)))]

    def stages(self) -> dict[str, tuple[Callable[[], float], int]]:
        """Return what measures each stage in images per second, and the threads it runs in."""
        config = self._config
        stages: dict[str, tuple[Callable[[], float], int]] = {
            "inspect": (lambda: self._rate(self._inspect, self._jpegs, 1), 1),
            "decode": (
                lambda: self._own_rate(lambda record: self._decoder([record]), self._inspected, config.decode.workers),
                config.decode.workers,
            ),
            "generate": (self._generate_per_s, batches_in_flight_for(self._machine.device)),
        }
        if self._workload.detail != "none":
            stages["restore"] = (
                lambda: self._own_rate(lambda record: restore([record]), self._translated, config.encode.workers),
                config.encode.workers,
            )
        stages["encode"] = (
            lambda: self._own_rate(lambda record: self._encoder([record]), self._restored, config.encode.workers),
            config.encode.workers,
        )
        stages["store"] = (
            lambda: self._rate(self._store, list(enumerate(self._encoded)), config.store.workers),
            config.store.workers,
        )
        return stages

    def ceilings(self) -> dict[str, Callable[[], float]]:
        """Return what measures the ceiling of each stage that has one, in images per second."""
        photos_HWC = [record.payload.pixels_HWC.numpy() for record in self._restored]
        arch = self._translator.card.architecture
        gflop = generator_gflop(arch, *(-(-side // arch.stride) * arch.stride for side in self._workload.working_size))
        copied_gb = 2 * 3 * self._workload.megapixels / 1e3
        seconds = self._effort_s
        ceilings: dict[str, Callable[[], float]] = {
            "decode": lambda: jpeg_decode_per_s(self._jpegs, seconds),
            "generate": lambda: (
                self._machine.convolution_tflops(arch, default_batch(self._machine.device)) * 1e3 / gflop
            ),
            "encode": lambda: jpeg_encode_per_s(photos_HWC, seconds),
            "store": lambda: file_write_per_s(self._encoded, self._scratch, seconds),
        }
        if self._workload.detail != "none":
            cpu = Machine(self._cpu, self._machine.precision, seconds)
            ceilings["restore"] = lambda: cpu.copy_gb_per_s() / copied_gb
        return ceilings

    @property
    def _cpu(self) -> Any:
        return self._decoded[0].payload.pixels_HWC.cpu().device

    def _generate_per_s(self) -> float:
        threads = batches_in_flight_for(self._machine.device)
        return len(self._batch_NHWC) * self._rate(self._translator, [self._batch_NHWC] * threads, threads)

    def _rate(self, work: Callable[[Any], object], items: list[Any], threads: int) -> float:
        return rate(work, items, threads, self._effort_s)

    def _own_rate(self, work: Callable[[Any], object], items: list[Any], threads: int) -> float:
        """Measure in threads that keep PyTorch's operators to themselves, as those of these stages do."""
        return rate(work, items, threads, self._effort_s, keep_to_one_thread)

    def _inspect(self, jpeg: bytes) -> None:
        inspect(jpeg, self._config.decode.max_pixels)

    def _store(self, numbered: tuple[int, bytes]) -> None:
        write_atomically(self._scratch / f"stored-{numbered[0]}.jpg", numbered[1])


def _all_well(outcomes: list[Any]) -> list[Any]:
    """Return the records; raises `StopRun` when one failed, which no photo made for measuring should."""
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise StopRun(f"A photo made for measuring failed in stage {outcome.stage}: {outcome.reason}.")
    return outcomes
