"""The generator compiled ahead of time by TorchInductor, one package for all batch and image sizes.

`torch.export` fixes the graph, AOTInductor turns it into a shared library, the artefact store keeps it: the first run
on a machine compiles for some tens of seconds, every later one loads it in milliseconds and needs no compiler.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor

from engine.artefacts import ArtefactStore
from engine.backends.base import DTYPES, PixelGenerator
from engine.errors import SetupError
from engine.weights import Generator

log = logging.getLogger(__name__)

_MAX_BATCH = 1024
_MAX_SIDE = 65_536


class InductorBackend:
    """Runs an ahead-of-time compiled generator on the CPU or a CUDA device."""

    name = "inductor"

    def __init__(self, generator: Generator, precision: str, device: torch.device, artefacts: ArtefactStore) -> None:
        """Load the package for this generator and machine, or compile it first.

        Raises `SetupError` when compiling is needed and there is no C++ compiler.
        """
        self.precision = precision
        self._device = device
        key = artefact_key(generator, precision, device)
        package = artefacts.get_or_build(key, lambda path: _compile(generator, precision, device, path))
        self._run = torch._inductor.aoti_load_package(str(package))

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        translated: Tensor = self._run(pixels_NHWC.to(self._device))
        return translated.cpu()


def artefact_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Name everything that a compiled package depends on."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_features()
    return {
        "backend": InductorBackend.name,
        "weights": generator.sha256,
        "precision": precision,
        "machine": f"{device.type} {machine}",
        "torch": torch.__version__,
    }


def _cpu_features() -> str:
    """Identify the instructions this CPU has: the package uses all of them, and would crash where one is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16]


def find_compiler() -> str | None:
    """Path of the C++ compiler that TorchInductor would use, None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def _compile(generator: Generator, precision: str, device: torch.device, path: Path) -> None:
    if find_compiler() is None:
        raise SetupError("Backend inductor needs a C++ compiler (g++); install one or use --backend eager.")
    log.warning("Compiling %s for this machine (%s): once, about half a minute.", generator.card.name, precision)
    module = PixelGenerator(copy.deepcopy(generator.module), DTYPES[precision]).to(device).eval()
    stride = generator.card.architecture.stride
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    rows = torch.export.Dim("rows", min=4, max=_MAX_SIDE // stride)
    columns = torch.export.Dim("columns", min=4, max=_MAX_SIDE // stride)
    # Different sides and more than one image: equal or single ones would be taken for constants.
    example_NHWC = torch.zeros(2, 64, 96, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch, nothing a user can act on
        program = torch.export.export(
            module, (example_NHWC,), dynamic_shapes=({0: batch, 1: stride * rows, 2: stride * columns},)
        )
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
