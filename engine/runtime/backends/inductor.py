"""The generator compiled ahead of time by TorchInductor, one package for all batch and image sizes.

`torch.export` fixes the graph, AOTInductor turns it into a shared library, the artefact store keeps it: the first run
on a machine compiles for some tens of seconds, every later one loads it in milliseconds and needs no compiler.

On a GPU the kernels are chosen by measurement (max-autotune) at the shape of the example. CUDA graphs are left out: the
library starts some 115 kernels from C++, about 0.5 ms, while the GPU works 4 ms on a batch of 16 at 4,000 images/s.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

from engine.errors import BackendUnavailable
from engine.model import upsampling
from engine.model.upsampling import folded_for_inference
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, ParityCase, PixelGenerator, generator_key
from engine.runtime.backends.streams import CopyStreams
from engine.runtime.cache import PackageCache

log = logging.getLogger(__name__)

_MAX_BATCH = 1024
_MAX_SIDE = 65_536


class InductorBackend:
    """Runs an ahead-of-time compiled generator on the CPU or a CUDA device."""

    name = "inductor"

    def __init__(self, generator: Generator, precision: str, device: torch.device, packages: PackageCache) -> None:
        """Load the package for this generator and machine, or compile it first.

        Raises `BackendUnavailable` when compiling is needed and something that it takes is missing.
        """
        self.precision = precision
        key = package_key(generator, precision, device)
        package = packages.get_or_build(key, lambda path: _compile(generator, precision, device, path))
        index = -1 if device.index is None else device.index
        package_run = torch._inductor.aoti_load_package(str(package), device_index=index)
        self._run = CopyStreams(package_run, device) if device.type == "cuda" else package_run
        self.parity_cases = [ParityCase(key, self)]

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        translated: Tensor = self._run(pixels_NHWC)
        return translated


def package_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Name everything that a compiled package depends on."""
    return generator_key(InductorBackend.name, generator, precision, device, upsampling.__file__, __file__)


def find_compiler() -> str | None:
    """Path of the C++ compiler that TorchInductor would use, None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def _compile(generator: Generator, precision: str, device: torch.device, path: Path) -> None:
    if find_compiler() is None:
        raise BackendUnavailable("Backend inductor needs a C++ compiler (g++); install one or use --backend eager.")
    log.warning("Compiling %s for this machine (%s): once, about half a minute.", generator.card.name, precision)
    module = PixelGenerator(folded_for_inference(generator.module), DTYPES[precision]).to(device).eval()
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        # The default is a folder in /tmp whose name can be guessed, where others may have put code to compile.
        temporary_cache_dir(str(path.parent / "inductor")),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # deprecations inside torch, nothing a user can act on
        program = _export(module, generator.card.architecture.stride, device)
        if device.type == "cpu":
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        else:
            _compile_for_gpu(program, path)


def _export(module: PixelGenerator, stride: int, device: torch.device) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    rows = torch.export.Dim("rows", min=4, max=_MAX_SIDE // stride)
    columns = torch.export.Dim("columns", min=4, max=_MAX_SIDE // stride)
    # Different sides and more than one image: equal or single ones would be taken for constants. On a GPU, the shape
    # at which kernels are compared.
    shape = (2, 64, 96, 3) if device.type == "cpu" else (16, 256, 320, 3)
    example_NHWC = torch.zeros(shape, dtype=torch.uint8, device=device)
    return torch.export.export(
        module, (example_NHWC,), dynamic_shapes=({0: batch, 1: stride * rows, 2: stride * columns},)
    )


def _compile_for_gpu(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compile with kernels chosen by measurement; raises `BackendUnavailable` where CUDA's headers are missing."""
    home = find_cuda_home()
    if home is None:
        raise BackendUnavailable(
            "Backend inductor needs CUDA's headers (cuda.h) on a GPU: install the CUDA toolkit or set CUDA_HOME."
        )
    os.environ.setdefault("CUDA_HOME", str(home))
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs={"max_autotune": True}
        )
    except (RuntimeError, OSError) as error:  # a header or a library of the toolkit that the compiler did not find
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendUnavailable(f"Backend inductor could not compile for this GPU: {reason}") from error


def find_cuda_home() -> Path | None:
    """Folder of CUDA's headers: a toolkit, or what PyTorch's own CUDA wheels brought; None where there is neither."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    wheels = Path(torch.__file__).parents[1] / "nvidia"
    folders = [Path(named)] if named else [Path("/usr/local/cuda"), *sorted(wheels.glob("cu*"), reverse=True)]
    return next((folder for folder in folders if (folder / "include/cuda.h").exists()), None)
