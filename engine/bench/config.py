"""What is measured and for how long; one frozen dataclass for the workload, the effort and the run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.config import GenerateConfig
from engine.options import Detail, Options, Size

DEFAULT_MODEL = "summer2winter"
DEFAULT_NGF = 64
"""Width of the published network."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of run from files to files."""

    name: str
    width: int
    """Pixels of the photos."""
    height: int
    size: str
    """Working size, as `--size` takes it."""
    detail: Detail
    different: int
    """Photos that differ from each other; longer runs link to them repeatedly."""
    min_images: int
    """Images in the shortest run."""

    @property
    def options(self) -> Options:
        """The options of `solstice convert` that this workload stands for."""
        return Options(size=Size.parse(self.size), detail=self.detail)

    @property
    def megapixels(self) -> float:
        """Megapixels of one photo, which are also those of its result."""
        return self.width * self.height / 1e6

    @property
    def working_size(self) -> tuple[int, int]:
        """Width and height in pixels at which the generator sees a photo."""
        return self.options.size.target(self.width, self.height)


THUMBNAILS = Workload(
    name="thumbnails", width=256, height=256, size="256x256", detail="none", different=32, min_images=32
)
PHONE = Workload(name="phone photos", width=4000, height=3000, size="auto", detail="guided", different=4, min_images=4)
FULL_SIZE = Workload(name="full size", width=4000, height=3000, size="native", detail="none", different=1, min_images=1)
PHONE_QUICK = replace(PHONE, different=2, min_images=2)
FULL_SIZE_QUICK = replace(FULL_SIZE, width=1024, height=768)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much time is spent."""

    rounds: int
    """Rounds through everything that is compared, after one that is not counted."""
    measured_s: float
    """Shortest duration of one measurement."""
    run_s: float
    """Duration that a run of a workload aims at, once its rate is known."""
    batches: tuple[int, ...]
    """Batch sizes at 256x256."""
    sides: tuple[int, ...]
    """Sides in pixels of the square images of which the rate by size is measured."""
    workloads: tuple[Workload, ...]
    jobs: int = 4000
    """Jobs in each measurement of the queue."""


FULL = Effort(
    rounds=5,
    measured_s=1.0,
    run_s=20.0,
    batches=(1, 2, 4, 8, 16, 32),
    sides=(128, 256, 512, 1024),
    workloads=(THUMBNAILS, PHONE, FULL_SIZE),
)
QUICK = Effort(
    rounds=3,
    measured_s=0.1,
    run_s=1.0,
    batches=(1, 4),
    sides=(128, 256, 512),
    workloads=(THUMBNAILS, PHONE_QUICK, FULL_SIZE_QUICK),
    jobs=1000,
)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """One run of `solstice bench`."""

    model: str = DEFAULT_MODEL
    """Name or file."""
    ngf: int | None = None
    """Width of a network with random weights that is measured instead of `model`."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    photos: Path | None = None
    """Folder of JPEGs from which the measured photos are made; None as in `engine.bench.photos`."""
    effort: Effort = FULL
    brokers: str | None = None
    """HOST:PORT of Kafka brokers at which the queue is measured; None leaves it out."""
