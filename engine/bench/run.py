"""One run of `solstice bench`: ceilings, the generator, each stage alone, workloads from files to files, the queue."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from engine.bench.ceilings import Machine, jpeg_decode_per_s, jpeg_encode_per_s
from engine.bench.config import PHONE, QUICK, BenchConfig
from engine.bench.document import SCHEMA, Document
from engine.bench.end_to_end import measure_end_to_end
from engine.bench.generator import default_batch, measure_generator, network, settled, start
from engine.bench.machine import OtherLoad, describe_machine, describe_versions
from engine.bench.photos import Scenes, find_scenes
from engine.bench.queue import measure_queue
from engine.bench.stages import measure_stages
from engine.bench.timing import Spread, alternate
from engine.codec.jpeg import decode_rgb
from engine.config import PipelineConfig
from engine.model.card import Architecture, Card, find_model
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, load_generator, save_generator
from engine.system.device import choose_device

OTHERS_LIMIT = 0.05
"""Share of the cores that other processes may take before a run is too noisy to trust."""
NOISY_LIMIT = 0.25
"""Share of the measurements that may spread too much, likewise."""

Announce = Callable[[str], None]
"""Called with a short description of the next measurement."""


def measure(config: BenchConfig, progress: Announce = lambda _: None) -> Document:
    """Measure this machine and return the document; it takes minutes.

    Raises `SetupError` when the device, the model, the photos or the brokers cannot be used.
    """
    device = choose_device(config.generate.device)
    others = OtherLoad()
    with tempfile.TemporaryDirectory(prefix="solstice-bench-") as folder:
        scratch = Path(folder)
        scenes = find_scenes(config.photos)
        model = find_model(config.model) if config.ngf is None else random_model(scratch, config.ngf)
        generator = load_generator(model)
        config = replace(config, generate=settled(generator, config.generate))
        progress("starting the generator, which compiles it if this machine has not done so before")
        started = start(generator, config.generate, device)
        machine = Machine(device, started.translator.backend.precision, config.effort.measured_s)
        progress("ceilings")
        document: Document = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(device),
            "versions": describe_versions(),
            "settings": _settings(config, generator, machine, scenes, started.translator.backend.name),
            "start": started.to_document(),
            "ceilings": _ceilings(machine, generator, scenes, config),
        }
        progress("the generator by batch and by size")
        document["generator"] = measure_generator(
            generator, started.translator, machine, config.effort, config.effort.sides
        )
        pipeline = PipelineConfig(generate=config.generate)
        document["workloads"] = list(
            _workloads(config, model, scenes, started.translator, machine, pipeline, scratch, progress)
        )
        document["queue"] = None
        if config.brokers is not None:
            progress("the queue")
            document["queue"] = measure_queue(config.brokers, model, scenes, pipeline, config.effort)
    document["noise"] = judge_noise(document, others.cores())
    return document


def random_model(folder: Path, ngf: int) -> Path:
    """Write a generator of width `ngf` with random weights, always the same; raises `ValueError` as `Architecture`."""
    path = folder / f"random-ngf{ngf}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ResnetGenerator(Architecture(ngf=ngf))
    save_generator(path, module, Card(name=path.stem), torch.float32)
    return path


def judge_noise(document: Document, other_cores: float | None) -> dict[str, Any]:
    """Return whether a run can be trusted, and the reasons if not."""
    spreads = list(_spreads(document))
    noisy = sum(spread.noisy for spread in spreads)
    cores = document["machine"]["cores"]
    reasons = []
    if other_cores is not None and other_cores > OTHERS_LIMIT * cores:
        reasons.append(f"other processes took {other_cores:.1f} of {cores} cores")
    if noisy > NOISY_LIMIT * len(spreads):
        reasons.append(f"{noisy} of {len(spreads)} measurements spread by more than a fifth of their median")
    return {
        "trusted": not reasons,
        "reasons": reasons,
        "other_cores": None if other_cores is None else round(other_cores, 2),
        "noisy_measurements": noisy,
        "measurements": len(spreads),
    }


def _workloads(
    config: BenchConfig,
    model: Path,
    scenes: Scenes,
    translator: Any,
    machine: Machine,
    pipeline: PipelineConfig,
    scratch: Path,
    progress: Announce,
) -> Iterator[dict[str, Any]]:
    for workload in config.effort.workloads:
        progress(f"{workload.name} ({workload.width}x{workload.height}): each stage alone")
        config_here = replace(pipeline, options=workload.options)
        stages = measure_stages(workload, scenes, translator, machine, config_here, config.effort)
        progress(f"{workload.name}: from files to files")
        photos = scenes.write(scratch / "photos", workload.different, workload.width, workload.height)
        run_folder = scratch / "run"
        run_folder.mkdir()
        end_to_end = measure_end_to_end(workload, photos, model, config_here, config.effort, run_folder)
        yield {
            "name": workload.name,
            "width": workload.width,
            "height": workload.height,
            "size": workload.size,
            "detail": workload.detail,
            "working_size": list(workload.working_size),
            "stages": [stage.to_document(workload) for stage in stages],
            "end_to_end": end_to_end,
        }
        for folder in (scratch / "photos", run_folder):
            shutil.rmtree(folder)


def _ceilings(machine: Machine, generator: Generator, scenes: Scenes, config: BenchConfig) -> dict[str, Any]:
    arch, seconds = generator.card.architecture, config.effort.measured_s
    jpeg = scenes.jpeg(0, PHONE.width, PHONE.height)
    photo_HWC = decode_rgb(jpeg)
    works: dict[str, Callable[[], float]] = {
        "matrix_fp32_tflops": lambda: machine.matrix_tflops("fp32"),
        "convolution_tflops": lambda: machine.convolution_tflops(arch, default_batch(machine.device)),
        "memory_copy_gb_per_s": machine.copy_gb_per_s,
        "jpeg_decode_mp_per_s": lambda: PHONE.megapixels * jpeg_decode_per_s([jpeg] * 2, seconds),
        "jpeg_encode_mp_per_s": lambda: PHONE.megapixels * jpeg_encode_per_s([photo_HWC] * 2, seconds),
    }
    if machine.precision != "fp32":
        works["matrix_tflops"] = lambda: machine.matrix_tflops(machine.precision)
    if machine.device.type == "cuda":
        works["copy_to_gpu_gb_per_s"] = lambda: machine.transfer_gb_per_s(to_device=True)
        works["copy_from_gpu_gb_per_s"] = lambda: machine.transfer_gb_per_s(to_device=False)
    return {name: spread.to_document() for name, spread in alternate(works, config.effort.rounds).items()}


def _settings(
    config: BenchConfig, generator: Generator, machine: Machine, scenes: Scenes, backend: str
) -> dict[str, Any]:
    effort = config.effort
    return {
        "device": str(machine.device),
        "model": generator.card.name,
        "model_sha256": generator.sha256,
        "network": network(generator.card.architecture),
        "backend": backend,
        "precision": machine.precision,
        "batch": default_batch(machine.device),
        "threads": torch.get_num_threads(),
        "photos": scenes.origin,
        "quick": effort == QUICK,
        "rounds": effort.rounds,
        "measured_s": effort.measured_s,
    }


def _spreads(part: Any) -> Iterator[Spread]:
    """Find all measurements in a document."""
    if isinstance(part, dict):
        if "values" in part and "median" in part:
            yield Spread.from_document(part)
        else:
            for inner in part.values():
                yield from _spreads(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _spreads(inner)
