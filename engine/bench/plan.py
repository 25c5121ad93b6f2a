"""Size a deployment from a measurement: how many workers, partitions and replicas a daily load needs.

peak rate  = images per day / 86,400 s * peak factor
workers    = peak rate / (rate of one worker * utilisation), rounded up
partitions = twice the workers, so that the group can double without a new topic
lag per worker = rate of one worker * catch-up time, the `lagThreshold` of KEDA's Kafka scaler

An archive, which is translated once:

machine hours = images / (rate of one machine * utilisation) / 3,600 s
machines      = machine hours / hours until it must be done, rounded up
requests      = 2 per image (read it, write its result), and a listing of source and results, 1,000 names a page
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from engine.bench.document import Document
from engine.errors import SetupError
from engine.options import Size

DAY_S = 86_400
REACH = 2.0
"""A rate is carried over to areas at most this many times smaller or larger than those measured."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked for."""

    images_per_day: int
    size: Size
    """Working size, a side or WIDTHxHEIGHT."""
    peak_factor: float = 3.0
    """Load of the busiest hour over the mean of the day."""
    utilisation: float = 0.7
    """Share of a worker's measured rate that is planned with; the rest absorbs bursts, rebalances and restarts."""
    catch_up_s: float = 300.0
    """Time in which a backlog at the scaling threshold is worked off."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a load needs."""

    machine: str
    """Processor or GPU that was measured; one worker has one of it."""
    images_per_s_per_worker: float
    """Measured rate of one worker at this size, from files to files."""
    trusted: bool
    """False if the measurement was too noisy to rely on."""
    mean_images_per_s: float
    peak_images_per_s: float
    workers_at_mean: int
    workers_at_peak: int
    partitions: int
    lag_threshold: int
    memory_bytes_per_worker: int
    """Largest memory that the measured workload took, with half as much again."""

    @property
    def values(self) -> dict[str, Any]:
        """Values for the Helm chart in deploy/helm/solstice."""
        return {
            "kafka": {"createTopics": self.partitions},
            "keda": {
                "enabled": True,
                "minReplicas": self.workers_at_mean,
                "maxReplicas": self.partitions,
                "lagThreshold": self.lag_threshold,
            },
            "resources": {
                "requests": {"memory": f"{math.ceil(self.memory_bytes_per_worker / 2**20)}Mi"},
                "limits": {"memory": f"{math.ceil(self.memory_bytes_per_worker / 2**20)}Mi"},
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the chart's values."""
        return {**asdict(self), "values": self.values}


def plan(load: Load, document: Document) -> Plan:
    """Size the deployment for `load` from a document of `solstice bench`.

    Raises `SetupError` when the load makes no sense or the document measured no size near the one asked for.
    """
    if load.images_per_day < 1:
        raise SetupError("--images-per-day must be at least 1.")
    if load.size.mode not in ("short", "exact"):
        raise SetupError(f"--size {load.size}: a plan needs a side or WIDTHxHEIGHT, since native sizes vary by photo.")
    rate = worker_rate(document, load.size.width * load.size.height)
    mean = load.images_per_day / DAY_S
    peak = mean * load.peak_factor
    planned = rate * load.utilisation
    at_peak = max(1, math.ceil(peak / planned))
    machine = document["machine"]
    return Plan(
        machine=machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores",
        images_per_s_per_worker=rate,
        trusted=document["noise"]["trusted"],
        mean_images_per_s=mean,
        peak_images_per_s=peak,
        workers_at_mean=max(1, math.ceil(mean / planned)),
        workers_at_peak=at_peak,
        partitions=2 * at_peak,
        lag_threshold=max(1, round(rate * load.catch_up_s)),
        memory_bytes_per_worker=round(1.5 * _memory_bytes(document)),
    )


NAMES_PER_PAGE = 1000
"""Names that an object store lists with one request (S3's `ListObjectsV2`, and others)."""

ENTRY_BYTES = 150
"""Of the manifest for each image, measured by `benchmarks/listing.py` with names of 30 characters."""

PLANNING_BYTES = 800
"""Memory for each name while a run is planned, measured by `benchmarks/listing.py`."""


@dataclass(frozen=True, kw_only=True)
class ArchiveEstimate:
    """What it takes to translate an archive once."""

    images: int
    images_per_s_per_machine: float
    days: float
    """Time in which it shall be done."""
    machine_hours: float
    """GPU hours where the rate is that of a GPU."""
    machines: int
    """Machines, or GPUs, that are done within `days`."""
    requests: int
    """To the object store, if source and results are in one."""
    manifest_bytes: int
    planning_bytes: int
    """Memory that the planning process takes, if it plans the archive as a whole."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def estimate_archive(images: int, images_per_s: float, days: float, utilisation: float = 0.9) -> ArchiveEstimate:
    """Estimate a run over `images` photos on machines of a measured rate.

    `utilisation` is the share of the rate that remains after starts, retries and the slowest share at the end.
    """
    machine_hours = images / (images_per_s * utilisation) / 3600
    return ArchiveEstimate(
        images=images,
        images_per_s_per_machine=images_per_s,
        days=days,
        machine_hours=machine_hours,
        machines=math.ceil(machine_hours / (24 * days)),
        requests=2 * images + 2 * math.ceil(images / NAMES_PER_PAGE),
        manifest_bytes=images * ENTRY_BYTES,
        planning_bytes=images * PLANNING_BYTES,
    )


def worker_rate(document: Document, num_pixels: int) -> float:
    """Return images per second of one worker at `num_pixels` of working size.

    The generator's rate in pixels, between the measured sides, times the share of the generator's rate that a whole run
    from files to files reaches in the nearest workload.
    """
    measured = sorted((row["side"] ** 2, row["mp_per_s"]["median"]) for row in document["generator"]["by_side"])
    if not measured or not measured[0][0] / REACH <= num_pixels <= measured[-1][0] * REACH:
        sides = ", ".join(str(math.isqrt(area)) for area, _ in measured) or "none"
        raise SetupError(
            f"The measurement has no size near {num_pixels / 1e6:.2f} megapixels (its sides: {sides}); "
            "measure again without --quick, or plan for another --size."
        )
    generator_rate = _between(measured, num_pixels) * 1e6 / num_pixels
    return generator_rate * _share_of_whole_run(document, num_pixels)


def _between(points: list[tuple[int, float]], at: int) -> float:
    """Interpolate linearly; outside of the points return the nearest one."""
    if at <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return points[-1][1]


def _share_of_whole_run(document: Document, num_pixels: int) -> float:
    def distance(workload: dict[str, Any]) -> float:
        width, height = workload["working_size"]
        return abs(math.log(width * height / num_pixels))

    if not document["workloads"]:
        raise SetupError("The measurement has no whole run; measure again with this version of `solstice bench`.")
    workload = min(document["workloads"], key=distance)
    alone = next(float(s["images_per_s"]["median"]) for s in workload["stages"] if s["stage"] == "generate")
    return min(1.0, float(workload["end_to_end"]["images_per_s"]["median"]) / alone)


def _memory_bytes(document: Document) -> float:
    return max(float(workload["end_to_end"]["peak_bytes"]["median"]) for workload in document["workloads"])
