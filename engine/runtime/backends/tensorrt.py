"""The generator as TensorRT engines, built by Torch-TensorRT: one engine per size, any batch up to a limit.

Precision is part of the module: half weights, half input and output, and float32 where InstanceNorm adds up its
statistics, because TensorRT 11 has no automatic precision and uses the types of the module. An engine is tied to
TensorRT's version and to the card, so both are in its key. What is stored is the bare engine; loading one needs
TensorRT's runtime, not Torch-TensorRT.

Torch-TensorRT up to 2.13 gives an engine one profile of shapes, tuned for one of them, so each size has its own engine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from engine.config import GPU_BATCH
from engine.errors import BackendUnavailable, first_line
from engine.model import folding
from engine.model.card import Architecture
from engine.model.folding import fold_batch_norm
from engine.model.network import GeneratorNetwork
from engine.model.pixels import to_network, to_pixels
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, ParityCase, PixelGenerator, generator_key
from engine.runtime.backends.streams import CopyStreams
from engine.runtime.cache import PackageCache

log = logging.getLogger(__name__)

_MIN_SIDE = 16
Shape = tuple[int, int, int, int]
_RUNTIMES = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Profile:
    """The shapes one engine takes, and the one it is tuned for."""

    batch: int = GPU_BATCH
    """Images in the batch it is tuned for, which is also the largest it takes."""
    height: int = 256
    """Rows it is tuned for; it takes 16 to twice as many."""
    width: int = 256
    """Columns it is tuned for; it takes 16 to twice as many."""

    def shapes(self, arch: Architecture) -> tuple[Shape, Shape, Shape]:
        """Return the smallest [N, C, H, W] for a generator, the one it is tuned for, and the largest.

        The largest has twice the tuned sides, which covers photos whose short side is given. Sides are rounded up to
        multiples of the generator's stride.
        """

        def shape(batch: int, *sides: int) -> Shape:
            height, width = (-(-side // arch.stride) * arch.stride for side in sides)
            return (batch, arch.channels_in, height, width)

        tuned, largest = (shape(self.batch, times * self.height, times * self.width) for times in (1, 2))
        return shape(1, _MIN_SIDE, _MIN_SIDE), tuned, largest

    def takes(self, count: int, height: int, width: int) -> bool:
        """Return whether a batch of this shape is within the profile."""
        fits = _MIN_SIDE <= height <= 2 * self.height and _MIN_SIDE <= width <= 2 * self.width
        return count <= self.batch and fits

    @classmethod
    def for_side(cls, side: int, batch: int = GPU_BATCH) -> Profile:
        """Return the profile for square images of `side`, in batches of as many pixels as `batch` images of 256x256."""
        return cls(max(1, min(batch, batch * 256 * 256 // (side * side))), side, side)

    def __str__(self) -> str:
        return f"{self.batch}x{self.height}x{self.width}"


def nearest(profiles: Iterable[Profile], height: int, width: int) -> Profile | None:
    """Return the profile that accepts an image and is tuned for the nearest size; None if there is none."""
    taking = [profile for profile in profiles if profile.takes(1, height, width)]
    return min(taking, key=lambda p: abs(math.log(height * width / (p.height * p.width))), default=None)


class TensorRTBackend:
    """Runs a generator's engines on a CUDA device; shapes that no engine takes run on the half-precision module."""

    name = "tensorrt"

    def __init__(
        self,
        generator: Generator,
        precision: str,
        device: torch.device,
        packages: PackageCache,
        profiles: tuple[Profile, ...] = (Profile(),),
    ) -> None:
        """Load the engines for this generator, card and these profiles, or build them first.

        Raises `BackendUnavailable` when TensorRT is not installed or refuses the network or this card.
        """
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._engines = {profile: _engine(generator, precision, device, packages, profile) for profile in profiles}
        self._channels = generator.module.arch.channels_in
        self._module: nn.Module = PixelGenerator(fold_batch_norm(generator.module), self._dtype).to(device)
        self._run = CopyStreams(self._translate, device)
        self.parity_cases = [
            ParityCase(
                engine_key(generator, precision, device, profile), CopyStreams(partial(self._through, engine), device)
            )
            for profile, engine in self._engines.items()
        ]

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return self._run(pixels_NHWC)

    def _translate(self, pixels_NHWC: Tensor) -> Tensor:
        profile = nearest(self._engines, *pixels_NHWC.shape[1:3])
        if profile is None:
            translated: Tensor = self._module(pixels_NHWC)
            return translated
        parts = [self._through(self._engines[profile], part) for part in torch.split(pixels_NHWC, profile.batch)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _through(self, engine: Engine, pixels_NHWC: Tensor) -> Tensor:
        return to_pixels(engine(to_network(pixels_NHWC, self._dtype, self._channels).contiguous()))


class Engine:
    """A deserialised engine with its execution context; runs on the current stream, one call at a time."""

    def __init__(self, data: bytes, device: torch.device) -> None:
        """Raises `BackendUnavailable` when TensorRT does not accept `data` on this card."""
        trt = runtime()
        # TensorRT takes the device that is current when an engine is loaded.
        with torch.cuda.device(device):
            self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(data)
            context = None if self._engine is None else self._engine.create_execution_context()
        if context is None:
            raise BackendUnavailable(
                f"TensorRT does not accept its engine on {torch.cuda.get_device_name(device)}: it was built for "
                "another card or another version, or this card is too full for it."
            )
        self._context = context
        self._input, self._output = (self._engine.get_tensor_name(i) for i in range(2))

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Translate contiguous [N, C, H, W]."""
        count, _, height, width = images_NCHW.shape
        channels = self._engine.get_tensor_shape(self._output)[1]
        translated_NCHW = images_NCHW.new_empty((count, channels, height, width))
        self._context.set_input_shape(self._input, tuple(images_NCHW.shape))
        self._context.set_tensor_address(self._input, images_NCHW.data_ptr())
        self._context.set_tensor_address(self._output, translated_NCHW.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(images_NCHW.device).cuda_stream):
            raise RuntimeError(f"TensorRT could not run a batch of {tuple(images_NCHW.shape)}")
        return translated_NCHW


class Float32Norm(nn.Module):
    """An InstanceNorm that adds up in float32, for a module whose other layers are half precision."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]; gives the dtype it gets."""
        normalised: Tensor = self.norm(x.float())
        return normalised.to(x.dtype)


def installed() -> bool:
    """Return whether Torch-TensorRT and one of TensorRT's runtimes are installed, which building an engine needs."""
    return importlib.util.find_spec("torch_tensorrt") is not None and _runtime_name() is not None


def runtime() -> ModuleType:
    """Import TensorRT; raises `BackendUnavailable` where it is not installed or does not load."""
    name = _runtime_name()
    if name is None:
        raise BackendUnavailable("Backend tensorrt needs TensorRT; `pip install torch-tensorrt` brings it.")
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"TensorRT is installed but does not load here ({error}).") from error


def engine_key(generator: Generator, precision: str, device: torch.device, profile: Profile) -> dict[str, str]:
    """Return the key of an engine: everything it depends on."""
    key = generator_key(TensorRTBackend.name, generator, precision, device, folding.__file__, __file__)
    return {**key, "profile": str(profile), **versions()}


def versions() -> dict[str, str]:
    """Return the installed versions of Torch-TensorRT and TensorRT by distribution, without importing them."""
    names = ("torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-rtx")
    return {name: version for name in names if (version := _version(name)) is not None}


def export(
    module: GeneratorNetwork, dtype: torch.dtype, profile: Profile, device: torch.device
) -> torch.export.ExportedProgram:
    """Fix the graph of a generator for `profile` with batch, rows and columns left open: a `torch.export` program."""
    typed = keep_norms_in_float32(fold_batch_norm(module).to(dtype)).to(device).eval()
    stride = module.arch.stride
    (_, channels, least, _), _, (count, _, height, width) = profile.shapes(module.arch)
    rows, columns = 2 * max(32, stride), 3 * max(32, stride)
    example_NCHW = torch.zeros(2, channels, rows, columns, dtype=dtype, device=device)
    shapes = {
        0: torch.export.Dim("batch", min=1, max=max(2, count)),
        2: stride * torch.export.Dim("rows", min=least // stride, max=max(rows, height) // stride),
        3: stride * torch.export.Dim("columns", min=least // stride, max=max(columns, width) // stride),
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch, nothing a user can act on
        return torch.export.export(typed, (example_NCHW,), dynamic_shapes=(shapes,), strict=False)


def keep_norms_in_float32(module: nn.Module) -> nn.Module:
    """Replace every InstanceNorm within `module` by one that adds up in float32."""
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm2d):
            setattr(module, name, Float32Norm(child))
        else:
            keep_norms_in_float32(child)
    return module


def convert(
    program: torch.export.ExportedProgram, dtype: torch.dtype, shapes: tuple[Shape, Shape, Shape], device: torch.device
) -> bytes:
    """Build one engine; raises `BackendUnavailable` when Torch-TensorRT cannot convert all of the program."""
    try:
        import torch_tensorrt  # not at the top: it fails to import on a machine without a driver

        smallest, tuned, largest = shapes
        spec = torch_tensorrt.Input(min_shape=smallest, opt_shape=tuned, max_shape=largest, dtype=dtype)
        engine: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program, arg_inputs=[spec], require_full_compilation=True, device=device
        )
    except Exception as error:  # whatever the compiler raises, another backend can do the work
        reason = first_line(error)
        raise BackendUnavailable(f"TensorRT could not build this generator: {reason}") from error
    return engine


def _engine(
    generator: Generator, precision: str, device: torch.device, packages: PackageCache, profile: Profile
) -> Engine:
    runtime()  # a clear word before anything is built
    key = engine_key(generator, precision, device, profile)

    def build_into(path: Path) -> None:
        log.warning("Building the TensorRT engine of %s for %s: once, some minutes.", generator.card.name, profile)
        program = export(generator.module, DTYPES[precision], profile, device)
        shapes = profile.shapes(generator.module.arch)
        path.write_bytes(convert(program, DTYPES[precision], shapes, device))

    return Engine(packages.get_or_build(key, build_into).read_bytes(), device)


def _runtime_name() -> str | None:
    return next((name for name in _RUNTIMES if importlib.util.find_spec(name) is not None), None)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
