"""Configuration: one frozen dataclass per stage; the defaults of the command line are these fields."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.options import Options

LANES = 3
"""Threads that keep a GPU busy: one copying in, one computing, one copying out."""


LOOPBACK = "127.0.0.1"
"""Only this machine reaches what is served there."""


def num_cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))


CPU_BATCH = 4
"""Pictures in a batch on a CPU, where more bring nothing and cost memory."""
GPU_BATCH = 32
"""Pictures in a batch on a GPU, which needs that many at 256x256 to be busy."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How bytes become pixels."""

    max_pixels: int = 200_000_000
    """An image whose header names more pixels is refused before anything is decoded."""
    allow_damaged: bool = False
    """Translate a JPEG whose data contradict themselves instead of refusing it."""
    jpegs: Literal["auto", "cpu"] = "auto"
    """Where baseline JPEGs are decoded: `auto` takes the generator's GPU where it runs on one."""
    workers: int = field(default_factory=num_cores)
    """Threads that decode."""
    chunk_images: int = 8
    """Images that one decoder call takes at most."""
    chunk_pixels: int = 2_000_000
    """Pixels that one decoder call takes at most, unless a single image has more."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pictures are grouped."""

    size: int | None = None
    """Pictures in a full batch; None is `CPU_BATCH` or `GPU_BATCH`, by what the generator runs on."""
    max_pixels: int = GPU_BATCH * 256 * 256
    """Pixels in a batch, unless a single picture has more; bounds the pictures that wait, too."""
    max_wait_s: float = float("inf")
    """How long a picture may wait for company."""


BackendName = Literal["auto", "eager", "inductor", "tensorrt"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How the generator runs."""

    backend: BackendName = "auto"
    """`eager` runs the module as it is; `inductor` and `tensorrt` compile it once per machine; `auto` picks."""
    precision: PrecisionName = "auto"
    """Floating-point type; `auto` is the fastest the machine computes well, and fp32 where eager is asked for."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""
    sides: tuple[int, ...] = (256,)
    """Pixels of the images' short sides that TensorRT tunes an engine for each; other sizes work as well."""
    lanes: int | None = None
    """Batches under way at once; None is 3 on a GPU, one copied in, one computed, one copied out, and 1 on a CPU."""
    cache: Path | None = None
    """Folder of compiled generators; None is `$SOLSTICE_CACHE` or `~/.cache/solstice`."""
    memory_bytes: int | None = None
    """What translating may take at a time; larger photos go in bands. None is half of what is free."""
    expected_pixels: int | None = None
    """How much work is coming, for `auto` to judge whether compiling pays; None for a lot."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How pixels become bytes."""

    quality: int = 92
    """JPEG and lossy WebP quality, 1 to 100."""
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    """JPEG chroma subsampling."""
    progressive: bool = False
    """Progressive JPEG: a little smaller, several times the encoding time."""
    lossless: bool = False
    """Lossless WebP."""
    strip: bool = False
    """Leave out EXIF, XMP, IPTC, comments and texts; the colour profile stays."""
    keep_profile: bool = False
    """Write in the photo's own colour profile instead of sRGB."""
    gpu_from_pixels: int | None = None
    """JPEGs of at least so many pixels are encoded on the generator's GPU; None leaves all to the CPU, until a
    measurement on a card (`benchmarks/gpu.py`, "encoders") says from where on that is quicker."""
    workers: int = field(default_factory=num_cores)
    """Threads that encode."""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How results are stored."""

    workers: int = 4
    """Threads that write; more than cores, since they wait for the disk most of the time."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All stages of a run."""

    options: Options = field(default_factory=Options)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
