"""A workload from files to files, in a process of its own, so that peak memory and processor time are its own."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from engine.archive.convert import Summary, convert
from engine.bench.ceilings import Machine, generator_gflop, jpeg_decode_per_s, jpeg_encode_per_s
from engine.bench.config import Effort, Workload
from engine.bench.energy import EnergyMeter, GpuUse, find_meters
from engine.bench.generator import default_batch, start
from engine.bench.machine import own_cpu_s
from engine.bench.photos import link_photos
from engine.bench.timing import Spread
from engine.codec.jpeg import decode_rgb
from engine.config import PipelineConfig, num_cores
from engine.errors import EngineError, StopRun
from engine.model.weights import load_generator
from engine.pipeline import fitted
from engine.runtime.translator import BatchTranslator
from engine.system.allocator import keep_freed_memory
from engine.system.device import choose_device

T = TypeVar("T")

_MAX_IMAGES = 50_000
_RESET_PEAK = "5"  # what /proc/PID/clear_refs takes for it


@dataclass(frozen=True)
class Round:
    """One run over the workload's photos, and what was measured around it."""

    summary: Summary
    ceiling_images_per_s: float
    cpu_s: float
    wall_s: float
    peak_bytes: int
    peak_gpu_bytes: int | None
    gpu_use: float | None
    joules: dict[str, float]


def measure_end_to_end(
    workload: Workload, photos: list[Path], model: Path, config: PipelineConfig, effort: Effort, scratch: Path
) -> dict[str, Any]:
    """Measure runs of `solstice convert` over `photos` in a new process; raises what `convert` raises."""
    return in_new_process(_measure, workload, photos, model, config, effort, scratch)


def in_new_process(work: Callable[..., T], *arguments: Any) -> T:
    """Return the result of `work(*arguments)`, run in a process of its own that never outlives the call.

    Raises the `EngineError` that it raises, and `StopRun` when the process ends without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        process.join()
        raise StopRun(
            f"The process that was measured ended with exit code {process.exitcode}; if the machine ran out of "
            "memory, measure with --quick."
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, EngineError):
        raise outcome
    result: T = outcome
    return result


def _answer(sender: Connection, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends this process
    keep_freed_memory()  # as `solstice convert` does
    try:
        result: object = work(*arguments)
    except EngineError as error:
        result = error
    sender.send(result)


def _measure(
    workload: Workload, photos: list[Path], model: Path, config: PipelineConfig, effort: Effort, scratch: Path
) -> dict[str, Any]:
    load_started_s = time.perf_counter()
    generator = load_generator(model)
    load_s = time.perf_counter() - load_started_s
    device = choose_device(config.generate.device)
    started = start(generator, config.generate, device)
    config = replace(config, options=workload.options)

    def run(images: int) -> Summary:
        link_photos(photos, scratch / "in", images)
        try:
            return convert(scratch / "in", scratch / "out", generator, config, translate=lambda _: started.translator)
        finally:
            shutil.rmtree(scratch / "in")
            shutil.rmtree(scratch / "out", ignore_errors=True)

    warm_up = _successful(run(workload.min_images))
    images = min(_MAX_IMAGES, max(workload.min_images, round(warm_up.images_per_second * effort.run_s)))
    ceiling = _Ceiling(workload, photos, started.translator, device, effort.measured_s)
    meters = find_meters(device)
    rounds = [_round(run, images, ceiling, device, meters) for _ in range(effort.rounds)]
    return {
        "images": images,
        "start": {"load_s": round(load_s, 3), **started.to_document(), "warm_up_s": warm_up.seconds},
        **_summarise(workload, rounds, config),
    }


def _round(
    run: Callable[[int], Summary], images: int, ceiling: _Ceiling, device: torch.device, meters: list[EnergyMeter]
) -> Round:
    allowed = ceiling.images_per_s()
    peak = PeakMemory(device)
    cpu_before_s, started_s = own_cpu_s(), time.perf_counter()
    for meter in meters:
        meter.start()
    with GpuUse(device) as gpu_use:
        summary = _successful(run(images))
    return Round(
        summary=summary,
        ceiling_images_per_s=allowed,
        joules={meter.source: meter.joules() for meter in meters},
        cpu_s=own_cpu_s() - cpu_before_s,
        wall_s=time.perf_counter() - started_s,
        peak_bytes=peak.num_bytes(),
        peak_gpu_bytes=peak.num_gpu_bytes(),
        gpu_use=gpu_use.mean,
    )


def _summarise(workload: Workload, rounds: list[Round], config: PipelineConfig) -> dict[str, Any]:
    rates = Spread(tuple(one.summary.images_per_second for one in rounds))
    ceiling = Spread(tuple(one.ceiling_images_per_s for one in rounds))
    use = _stage_use(rounds, config)
    cores = num_cores()
    return {
        "images_per_s": rates.to_document(),
        "mp_per_s": rates.scaled(workload.megapixels).to_document(),
        "ceiling_images_per_s": ceiling.to_document(),
        "share_of_ceiling": rates.over(ceiling).to_document(),
        "limited_by": max(use, key=lambda name: use[name]),
        "stage_use": use,
        "cpu_use": Spread(tuple(one.cpu_s / one.wall_s / cores for one in rounds)).to_document(),
        "gpu_use": _spread_or_none([one.gpu_use for one in rounds]),
        "peak_bytes": Spread(tuple(one.peak_bytes for one in rounds)).to_document(),
        "peak_gpu_bytes": _spread_or_none([one.peak_gpu_bytes for one in rounds]),
        "joules_per_image": {
            source: Spread(tuple(one.joules[source] / one.summary.converted for one in rounds)).to_document()
            for source in rounds[0].joules
        },
    }


def _stage_use(rounds: list[Round], config: PipelineConfig) -> dict[str, float]:
    """Return for each stage the share of its threads' time in which they were busy, over all rounds."""
    config = fitted(config)
    threads = {
        "decode": config.decode.workers,
        "generate": config.generate.batches_in_flight or 1,
        "encode": config.encode.workers,
        "restore": config.encode.workers,
        "store": config.store.workers,
    }
    available_s = sum(one.summary.seconds for one in rounds)
    names = dict.fromkeys(name for one in rounds for name in one.summary.stages)
    return {
        name: round(sum(one.summary.stages[name]["seconds"] for one in rounds) / threads.get(name, 1) / available_s, 3)
        for name in names
    }


class _Ceiling:
    """What the workload could reach at most on this machine.

    On a CPU decoding, generating and encoding share the cores, so that their times add up; beside a GPU the slower of
    the two sides counts.
    """

    def __init__(
        self,
        workload: Workload,
        photos: list[Path],
        translator: BatchTranslator,
        device: torch.device,
        measured_s: float,
    ) -> None:
        arch = translator.card.architecture
        self._machine = Machine(device, translator.backend.precision, measured_s)
        self._arch = arch
        self._gflop = generator_gflop(arch, *(-(-side // arch.stride) * arch.stride for side in workload.working_size))
        self._jpegs = [path.read_bytes() for path in photos]
        self._results_HWC = [decode_rgb(jpeg) for jpeg in self._jpegs]
        self._measured_s = measured_s

    def images_per_s(self) -> float:
        device = self._machine.device
        generate_s = self._gflop / 1e3 / self._machine.convolution_tflops(self._arch, default_batch(device))
        codec_s = 1 / jpeg_decode_per_s(self._jpegs, self._measured_s)
        codec_s += 1 / jpeg_encode_per_s(self._results_HWC, self._measured_s)
        return 1 / (max(generate_s, codec_s) if device.type == "cuda" else generate_s + codec_s)


class PeakMemory:
    """Highest resident memory of this process since this object was made, and highest GPU memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with suppress(OSError):  # without it the peak is that of the whole process
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def num_bytes(self) -> int:
        """Return the peak of the resident memory."""
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
        except (OSError, StopIteration):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def num_gpu_bytes(self) -> int | None:
        """Return the peak of what PyTorch held in the GPU's memory; None for a CPU."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None


def _successful(summary: Summary) -> Summary:
    if summary.failed:
        failure = summary.failures[0]
        raise StopRun(f"A photo made for measuring failed in stage {failure['stage']}: {failure['error']}.")
    return summary


def _spread_or_none(values: list[Any]) -> dict[str, Any] | None:
    return None if any(value is None for value in values) else Spread(tuple(map(float, values))).to_document()
