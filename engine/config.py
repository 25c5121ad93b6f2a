"""Configuration: one frozen dataclass per stage. Command-line defaults are the defaults of these fields."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engine.container import cpu_quota
from engine.options import Options

GPU_BATCHES_IN_FLIGHT = 3
"""Batches in flight on a GPU: one being copied in, one computed, one copied out."""


LOOPBACK = "127.0.0.1"
"""Listening address that only this machine can reach."""


def num_cores() -> int:
    """Return the number of processors this process may run on."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


CPU_BATCH = 4
"""Default batch size on a CPU; larger batches cost memory without a gain in speed."""
CPU_BATCH_PIXELS = 2 * CPU_BATCH * 256 * 256
"""Default limit of a batch on a CPU, twice that of 256x256, as images of that short side are wider. A batch of larger
images is no faster than one of them, and takes as many times the memory."""
GPU_BATCH = 32
"""Default batch size on a GPU, which needs this many images of 256x256 to be fully used."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Decoding of image files."""

    max_output_pixels: int = 50_000_000
    """Refuse to enlarge an image to more pixels than this; one that has more itself may keep them."""
    max_pixels: int = 200_000_000
    """Maximum pixels of an image; a file whose header declares more is refused before decoding."""
    allow_damaged: bool = False
    """Translate JPEGs with damaged data instead of refusing them."""
    jpegs: Literal["auto", "cpu"] = "auto"
    """Device that decodes baseline JPEGs: `auto` is the generator's GPU if it runs on one, else the CPU."""
    workers: int = field(default_factory=num_cores)
    """Decoding threads."""
    chunk_images: int = 8
    """Maximum images per decoder call."""
    chunk_pixels: int = 2_000_000
    """Maximum pixels per decoder call; a single larger image is decoded alone."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Grouping of images into batches."""

    size: int | None = None
    """Images in a full batch; None is `CPU_BATCH` or `GPU_BATCH`, depending on the generator's device."""
    max_pixels: int | None = None
    """Maximum pixels in a batch, and of images waiting for one; a single larger image is a batch of its own. None is
    `size` images of 256x256, and at least `GPU_BATCH` of them."""
    full_pixels: int | None = None
    """Maximum pixels in a batch if that is less than `max_pixels`; a single larger image is a batch of its own. None is
    `CPU_BATCH_PIXELS` on a CPU where `size` is None, otherwise `max_pixels`."""
    max_wait_s: float = float("inf")
    """Maximum wait for a batch to fill. Where it is finite, a batch leaves earlier while the generator is idle."""


TrunkName = Literal["auto", "torch", "winograd", "triton"]
BackendName = Literal["auto", "eager", "inductor", "openvino", "tensorrt"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Execution of the generator."""

    backend: BackendName = "auto"
    """`eager` runs PyTorch's own kernels; the others compile once per machine; `auto` chooses."""
    precision: PrecisionName = "auto"
    """Floating-point type; `-mixed` computes the first and last layers in fp32; `auto` is the fastest type that passes
    the parity check, and fp32 for the `eager` backend."""
    device: str = "auto"
    """`cpu`, `cuda` or `cuda:N`; `auto` is a GPU if there is one, else the CPU."""
    sides: tuple[int, ...] = (256,)
    """Short sides in pixels for which compiled backends are tuned; other sizes work too."""
    trunk: TrunkName = "auto"
    """Kernels of the residual blocks: `torch` are PyTorch's, `winograd` are convolutions with fewer multiplications in
    backend inductor on a CPU, `triton` are Solstice's own in fp16 on a GPU, of backends inductor and eager. `auto` is
    `winograd` in bf16 on a CPU without AMX where the generator allows it, else `torch`."""
    cuda_graph: bool = False
    """Replay batches whose shape recurs as CUDA graphs, for backends inductor and eager on a GPU."""
    tuned_batch: int = GPU_BATCH
    """Images of 256x256 in the largest batch for which compiled backends are tuned on a GPU, or as many pixels in fewer
    images of a larger side. Larger batches are split."""
    batches_in_flight: int | None = None
    """Batches translated concurrently; None is `GPU_BATCHES_IN_FLIGHT` on a GPU and 1 on a CPU."""
    cache: Path | None = None
    """Folder of the package cache; None is `$SOLSTICE_CACHE` or `~/.cache/solstice`."""
    memory_bytes: int | None = None
    """Memory for translating one batch; images that need more are tiled. None is half of the free memory."""
    expected_pixels: int | None = None
    """Total pixels to translate, from which `auto` decides whether compiling pays off; None for an unbounded run."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Encoding of results."""

    quality: int = 92
    """JPEG and lossy WebP quality, 1 to 100."""
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    """JPEG chroma subsampling."""
    progressive: bool = False
    """Progressive JPEG: slightly smaller files, several times the encoding time."""
    lossless: bool = False
    """Lossless WebP."""
    strip: bool = False
    """Omit EXIF, XMP, IPTC and comments; the colour profile is kept."""
    keep_profile: bool = False
    """Encode in the photo's own colour profile instead of sRGB."""
    gpu_from_pixels: int | None = None
    """Minimum pixels from which JPEGs are encoded on the generator's GPU; None encodes all on the CPU. Part "encoders"
    of `benchmarks/gpu.py` measures the size from which the GPU is faster."""
    workers: int = field(default_factory=num_cores)
    """Encoding threads."""

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Storage of results."""

    workers: int = 4
    """Writing threads; they mostly wait for the disk."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Configuration of all stages of a run."""

    in_flight_bytes: int | None = None
    """Memory of the images in flight, estimated from their headers; a larger image goes alone. None is half of
    `generate.memory_bytes` where that is given for a CPU, otherwise a quarter of what is available at the start."""
    max_image_bytes: int | None = None
    """Memory of one image, estimated from its header; a larger image is refused. None is twice the default of
    `in_flight_bytes`."""
    options: Options = field(default_factory=Options)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    @property
    def translator(self) -> GenerateConfig:
        """`generate` for a translator that gets the batches of `batch`: packages are tuned for batches of this size.

        Smaller batches run on the packages for the default size, so that they are compiled once.
        """
        return replace(self.generate, tuned_batch=max(self.generate.tuned_batch, self.batch.size or 0))
