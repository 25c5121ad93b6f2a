"""A document as a list of named measurements, which is what tables and comparisons are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.bench.document import Document
from engine.bench.timing import Spread

_CEILINGS = {
    "matrix_fp32_tflops": ("matrix product, fp32", "TFLOP/s"),
    "matrix_tflops": ("matrix product, {precision}", "TFLOP/s"),
    "convolution_tflops": ("the trunk's convolution, {precision}", "TFLOP/s"),
    "memory_copy_gb_per_s": ("memory copy, read and written", "GB/s"),
    "copy_to_gpu_gb_per_s": ("copy to the GPU", "GB/s"),
    "copy_from_gpu_gb_per_s": ("copy from the GPU", "GB/s"),
    "jpeg_decode_mp_per_s": ("JPEG decode, all cores", "MP/s"),
    "jpeg_encode_mp_per_s": ("JPEG encode, all cores", "MP/s"),
}


@dataclass(frozen=True)
class Row:
    """One measurement of a document."""

    group: str
    """`ceilings`, `generator`, `queue`, or the name of a workload."""
    name: str
    unit: str
    spread: Spread
    higher_is_better: bool = True


def rows_of(document: Document) -> Iterator[Row]:
    """Iterate over all measurements, in the order of the tables."""
    precision = document["settings"]["precision"]
    for key, (name, unit) in _CEILINGS.items():
        if key in document["ceilings"]:
            yield Row("ceilings", name.format(precision=precision), unit, _spread(document["ceilings"][key]))
    yield from _generator_rows(document["generator"])
    for workload in document["workloads"]:
        yield from _workload_rows(workload)
    if document["queue"] is not None:
        yield from _queue_rows(document["queue"])


def workload_title(workload: dict[str, Any]) -> str:
    """Return the name of a workload with the size of its photos, without which it cannot be compared."""
    return f"{workload['name']}, {workload['width']}x{workload['height']}"


def _generator_rows(generator: dict[str, Any]) -> Iterator[Row]:
    group = "generator, 256x256"
    yield Row(group, "eager fp32, batch 1", "images/s", _spread(generator["reference_images_per_s"]))
    for measured in generator["by_batch"]:
        yield Row(group, f"batch {measured['batch']}", "images/s", _spread(measured["images_per_s"]))
    yield Row(group, "best batch over eager fp32, batch 1", "times", _spread(generator["times_reference"]))
    yield Row(group, "best batch over its ceiling", "share", _spread(generator["share_of_ceiling"]))
    for measured in generator["by_side"]:
        side = measured["side"]
        yield Row("generator, by size", f"{side}x{side}", "MP/s", _spread(measured["mp_per_s"]))


def _workload_rows(workload: dict[str, Any]) -> Iterator[Row]:
    group, run = workload_title(workload), workload["end_to_end"]
    for stage in workload["stages"]:
        yield Row(group, f"{stage['stage']} alone", "images/s", _spread(stage["images_per_s"]))
    yield Row(group, "files to files", "images/s", _spread(run["images_per_s"]))
    yield Row(group, "files to files", "MP/s", _spread(run["mp_per_s"]))
    yield Row(group, "share of the ceiling", "share", _spread(run["share_of_ceiling"]))
    yield Row(group, "peak memory", "MB", _spread(run["peak_bytes"]).scaled(1e-6), higher_is_better=False)
    if run["peak_gpu_bytes"] is not None:
        spread = _spread(run["peak_gpu_bytes"]).scaled(1e-6)
        yield Row(group, "peak GPU memory", "MB", spread, higher_is_better=False)
    for meter, joules in run["joules_per_image"].items():
        yield Row(group, f"energy ({meter})", "J/image", _spread(joules), higher_is_better=False)


def _queue_rows(queue: dict[str, Any]) -> Iterator[Row]:
    yield Row("queue", "full speed, generator replaced", "jobs/s", _spread(queue["jobs_per_s"]))
    yield Row("queue", "half load, median", "ms", _spread(queue["half_load_median_ms"]), higher_is_better=False)
    yield Row("queue", "half load, 99 %", "ms", _spread(queue["half_load_p99_ms"]), higher_is_better=False)


def _spread(document: dict[str, Any]) -> Spread:
    return Spread.from_document(document)
