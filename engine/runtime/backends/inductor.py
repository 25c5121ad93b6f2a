"""The generator compiled ahead of time by TorchInductor, for any batch and image size.

`torch.export` captures the graph, AOTInductor compiles it to a shared library, and the package cache stores that: the
first run on a machine compiles for about a minute, later runs load it in milliseconds and need no compiler.

On a CPU one package takes every shape. On a GPU there are two: kernels of the tight package are selected by measurement
(max-autotune) and index memory with 32 bits, because its shapes are bounded; the wide package takes every other shape.
CUDA graphs (`engine.runtime.backends.graph`) are off unless requested: the library launches some 115 kernels from C++
in about 0.5 ms, while the GPU computes 4 ms on a batch of 16 at 4,000 images/s.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import GPU_BATCH
from engine.errors import BackendUnavailable, first_line
from engine.model import folding, inference, upsampling
from engine.model.inference import InferenceGenerator
from engine.model.network import GeneratorNetwork
from engine.model.weights import Generator
from engine.model.winograd import Part
from engine.runtime.backends import winograd
from engine.runtime.backends.aoti import CompiledLibrary
from engine.runtime.backends.base import DEFAULT_KERNELS, PRECISIONS, KernelOptions, ParityCase, generator_key
from engine.runtime.backends.graph import copy_streams
from engine.runtime.backends.streams import CopyStreams
from engine.runtime.cache import PackageCache
from engine.system.compiler import GCC_FLAGS, compiler_version, find_compiler, flag_options

log = logging.getLogger(__name__)


_TIGHT_IMAGES = 64
"""Images that the tight package takes at least, where indices allow it."""


@dataclass(frozen=True)
class Bounds:
    """Largest shape that a package takes."""

    images: int = 1024
    side: int = 65_536
    """Rows and columns in pixels."""

    def takes(self, height: int, width: int) -> bool:
        """Return whether images of this size are within the bounds."""
        return max(height, width) <= self.side

    @classmethod
    def tight(cls, side: int, channels: int, images: int = _TIGHT_IMAGES) -> Bounds:
        """Return bounds for up to `images` with a short side of `side`: twice the side, and all indices within 32 bits.

        `channels` are those of the widest map at full size.
        """
        per_image = channels * (2 * side) ** 2
        return cls(images=max(1, min(images, (2**31 - 1) // per_image)), side=2 * side)

    def __str__(self) -> str:
        return f"{self.images}x{self.side}x{self.side}"


WIDE = Bounds()


class InductorBackend:
    """Run an ahead-of-time compiled generator on the CPU or a CUDA device."""

    name = "inductor"

    def __init__(
        self,
        generator: Generator,
        precision: str,
        device: torch.device,
        packages: PackageCache,
        sides: tuple[int, ...] = (256,),
        batch: int = GPU_BATCH,
        options: KernelOptions = DEFAULT_KERNELS,
    ) -> None:
        """Load the packages of this generator for this machine, or compile them first.

        `sides` are the short sides to tune for on a GPU, of which the first is used, and `batch` is the number of
        images in the largest batch. Raises `BackendUnavailable` if a package must be compiled and something required
        for that is missing.
        """
        self.precision = precision
        self._runs: list[tuple[Bounds, Callable[[Tensor], Tensor]]] = []
        self.parity_cases: list[ParityCase] = []
        for bounds in bounds_for(generator, device, sides, batch):
            key = stored_key(package_key(generator, precision, device, bounds, options), packages)
            package = packages.get_or_build(key, _Compilation(generator, precision, device, bounds, options))
            captured: list[ParityCase] = []
            run: Callable[[Tensor], Tensor]
            if device.type == "cpu":
                run = _load_for_cpu(package, generator, precision, options)
            elif bounds == WIDE:  # for shapes that do not recur
                run = CopyStreams(_load_for_gpu(package, device), device)
            else:
                run, captured = copy_streams(_load_for_gpu(package, device), device, key, options)
            self._runs.append((bounds, run))
            self.parity_cases += [ParityCase(key, torch.inference_mode()(run)), *captured]

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        taking = (pair for pair in self._runs if pair[0].takes(*pixels_NHWC.shape[1:3]))
        bounds, run = next(taking, self._runs[-1])
        parts = [run(part_NHWC) for part_NHWC in torch.split(pixels_NHWC.contiguous(), bounds.images)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def bounds_for(
    generator: Generator, device: torch.device, sides: tuple[int, ...], batch: int = GPU_BATCH
) -> list[Bounds]:
    """Return the bounds of the packages for a device, the tightest first."""
    if device.type == "cpu":
        return [WIDE]
    arch = generator.module.arch
    widest = 2 * arch.ngf if "blur" in (arch.downsample, arch.upsample) else arch.ngf
    side = -(-sides[0] // arch.stride) * arch.stride
    return [Bounds.tight(side, widest, max(_TIGHT_IMAGES, batch)), WIDE]


def package_key(
    generator: Generator,
    precision: str,
    device: torch.device,
    bounds: Bounds = WIDE,
    options: KernelOptions = DEFAULT_KERNELS,
) -> dict[str, str]:
    """Return everything that a package depends on; without a compiler on this machine, everything but the compiler."""
    files = (folding.__file__, inference.__file__, upsampling.__file__, __file__)
    key = generator_key(InductorBackend.name, generator, precision, device, *files)
    compiler = find_compiler()
    versions = {} if compiler is None else {"compiler": compiler_version(compiler)}
    return {**key, "bounds": str(bounds), "flags": _march(), **versions, **options.key}


def stored_key(key: Mapping[str, str], packages: PackageCache) -> Mapping[str, str]:
    """Return `key`, or without a compiler the key of a package that any compiler built; it needs none to run."""
    return key if "compiler" in key else packages.matching(key) or key


def _march() -> str:
    return f"{os.environ.get('TORCHINDUCTOR_CPP_MARCH') or 'native'} {GCC_FLAGS}"


def _load_for_cpu(
    package: Path, generator: Generator, precision: str, options: KernelOptions
) -> Callable[[Tensor], Tensor]:
    try:
        if options.trunk == "winograd":
            return winograd.load_parts(package, generator.module, PRECISIONS[precision].dtype)
        return CompiledLibrary(package)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BackendUnavailable(f"Backend inductor cannot load its package {package} ({error}).") from error


def _load_for_gpu(package: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    # Single-threaded: otherwise a call waits for the GPU to finish the previous batch, holding the interpreter's lock.
    # `CopyStreams` lets one thread at a time enqueue work.
    index = -1 if device.index is None else device.index
    loader = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", True, 1, index)
    return lambda pixels_NHWC: loader.run([pixels_NHWC])[0]


@dataclass(frozen=True)
class _Compilation:
    """Compile a generator into a package."""

    generator: Generator
    precision: str
    device: torch.device
    bounds: Bounds
    options: KernelOptions

    def __call__(self, path: Path) -> None:
        """Write the package to `path`; raises `BackendUnavailable` if something required is missing."""
        if find_compiler() is None:
            raise BackendUnavailable("Backend inductor needs a C++ compiler (g++); install one or use --backend eager.")
        log.warning(
            "Compiling %s for this machine (%s): once, about a minute.", self.generator.card.name, self.precision
        )
        types = PRECISIONS[self.precision]
        inference = InferenceGenerator(
            self.generator.module,
            types.dtype,
            outer_dtype=types.outer_dtype,
            compiled=True,
            norm_by_rows=self.device.type == "cpu",
        )
        if self.options.trunk == "winograd":
            _compile_winograd(self.generator.module, inference, path, self.bounds)
            return
        module = self.options.apply(inference, self.generator).to(self.device)
        compile_module(module, path, self.generator.module.arch.stride, self.device, self.bounds)


def compile_module(module: nn.Module, path: Path, stride: int, device: torch.device, bounds: Bounds = WIDE) -> None:
    """Compile a function of uint8 [N, H, W, 3] on `device`, H and W multiples of `stride`, into a package at `path`.

    Raises `BackendUnavailable` if a GPU's headers are missing or compiling for it fails.
    """
    with _compiler(path.parent):
        program = _export(module, stride, device, bounds)
        if device.type == "cpu":
            _compile_for_cpu(program, path)
        else:
            _compile_for_gpu(program, path, {"max_autotune": bounds != WIDE})


def _compile_winograd(generator: GeneratorNetwork, inference: InferenceGenerator, path: Path, bounds: Bounds) -> None:
    """Compile a generator with Winograd's residual blocks, part by part, into a package at `path`."""

    def compiled() -> Iterator[tuple[Part, Path]]:
        for name, program in winograd.export_parts(generator, inference, bounds.side):
            part = path.with_name(f"{name}.pt2")
            _compile_for_cpu(program, part, winograd.OPTIONS)
            yield name, part

    with _compiler(path.parent):
        winograd.join_parts(compiled(), path)


@contextmanager
def _compiler(folder: Path) -> Iterator[None]:
    """Prepare PyTorch for exporting and compiling, with its files below `folder`."""
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir  # not at the top: it loads the compiler

    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        # The default is a folder in /tmp with a predictable name, where others may have put code to compile.
        temporary_cache_dir(str(folder / "inductor")),
        warnings.catch_warnings(),
        _collection_paused(),
    ):
        warnings.simplefilter("ignore")  # deprecations inside torch that a user cannot act on
        yield


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Pause the garbage collector: almost all that the compiler makes lives until it ends, and looking through it again
    and again takes a tenth of its time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _export(module: nn.Module, stride: int, device: torch.device, bounds: Bounds) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=max(2, bounds.images))
    least = max(1, 16 // stride)
    rows = torch.export.Dim("rows", min=least, max=bounds.side // stride)
    columns = torch.export.Dim("columns", min=least, max=bounds.side // stride)
    # Different sides and more than one image, because equal sides or a single image would be taken for constants. On a
    # GPU, kernels are compared at this shape.
    side = max(256, stride) if bounds == WIDE else bounds.side // 2
    step = max(32, stride)
    small = (2, 2 * step, 3 * step, 3)
    shape = small if device.type == "cpu" else (max(2, bounds.images // 4), side, side + max(64, stride), 3)
    example_NHWC = torch.zeros(shape, dtype=torch.uint8, device=device)
    return torch.export.export(
        module, (example_NHWC,), dynamic_shapes=({0: batch, 1: stride * rows, 2: stride * columns},)
    )


_OPTIONS: dict[str, Any] = {
    # Scale and shift of a norm are stored per channel instead of being recomputed for every value.
    "max_pointwise_cat_inputs": 0,
}


def _compile_for_cpu(program: torch.export.ExportedProgram, path: Path, options: Mapping[str, Any] = {}) -> None:
    settings = {**_OPTIONS, **flag_options(_march()), **options}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)


def _compile_for_gpu(program: torch.export.ExportedProgram, path: Path, options: Mapping[str, Any]) -> None:
    """Compile for a GPU; raises `BackendUnavailable` if CUDA's headers are missing or compiling fails."""
    home = find_cuda_home()
    if home is None:
        raise BackendUnavailable(
            "Backend inductor needs CUDA's headers (cuda.h) on a GPU: install the CUDA toolkit or set CUDA_HOME."
        )
    os.environ.setdefault("CUDA_HOME", str(home))
    try:
        settings = {**_OPTIONS, **options}
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    except (RuntimeError, OSError) as error:  # for example a header or library of the toolkit that was not found
        reason = first_line(error)
        raise BackendUnavailable(f"Backend inductor could not compile for this GPU: {reason}") from error


def find_cuda_home() -> Path | None:
    """Return the folder of CUDA's headers: a toolkit, or PyTorch's own CUDA wheels; None if there is neither."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    wheels = Path(torch.__file__).parents[1] / "nvidia"
    folders = [Path(named)] if named else [Path("/usr/local/cuda"), *sorted(wheels.glob("cu*"), reverse=True)]
    return next((folder for folder in folders if (folder / "include/cuda.h").exists()), None)
