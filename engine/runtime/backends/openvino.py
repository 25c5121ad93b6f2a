"""The generator compiled by OpenVINO for the CPU: one package for any batch and image size.

`auto` uses it only where `solstice compile` has measured that it is the fastest here.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import BackendUnavailable, first_line
from engine.model import folding, upsampling
from engine.model.pixels import to_network, to_pixels
from engine.model.upsampling import folded_for_inference
from engine.model.weights import Generator
from engine.runtime.backends.base import ParityCase, generator_key
from engine.runtime.cache import PackageCache
from engine.system.signal_stack import kept_signal_stack
from engine.system.versions import installed

log = logging.getLogger(__name__)

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOBackend:
    """Run a generator with OpenVINO's CPU plugin, which releases the interpreter's lock while it computes."""

    name = "openvino"

    def __init__(self, generator: Generator, precision: str, device: torch.device, packages: PackageCache) -> None:
        """Load the package of this generator for this machine, or compile it first.

        Raises `BackendUnavailable` if OpenVINO is not installed, or for other devices and precisions.
        """
        if not is_installed():
            raise BackendUnavailable("Backend openvino needs OpenVINO: pip install 'solstice-engine[openvino]'.")
        if device.type != "cpu":
            raise BackendUnavailable("Backend openvino runs on the CPU only; use --device cpu or another backend.")
        if precision not in _PRECISIONS:
            raise BackendUnavailable(f"Backend openvino computes in {' or '.join(_PRECISIONS)}, not in {precision}.")
        self.precision = precision
        key = openvino_key(generator, precision, device)

        def build(path: Path) -> None:
            log.warning("Compiling %s with OpenVINO for this machine (%s): once.", generator.card.name, precision)
            path.write_bytes(_compile(generator, precision))

        self._channels = generator.module.arch.channels_in
        self._run = _CompiledModel(packages.get_or_build(key, build), precision)
        self.parity_cases = [ParityCase(key, self)]

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        images_NCHW = to_network(pixels_NHWC, channels=self._channels).contiguous().numpy()
        # The output's memory belongs to the model and is overwritten by the next call; `to_pixels` copies it.
        return to_pixels(torch.from_numpy(self._run(images_NCHW)))


def is_installed() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def openvino_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Return everything that a package depends on, the number of threads included."""
    key = generator_key(
        OpenVINOBackend.name, generator, precision, device, folding.__file__, upsampling.__file__, __file__
    )
    return {**key, "openvino": installed("openvino"), "threads": str(torch.get_num_threads())}


def traced(module: nn.Module, example: Tensor) -> Any:
    """Return OpenVINO's model of a module, which runs once on `example`.

    OpenVINO traces with TorchScript. Its warnings concern branches on shapes inside of `torch.nn` and its deprecation,
    which a user cannot act on.
    """
    import openvino

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]  # it is public
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        return openvino.convert_model(module, example_input=example)


def _compile(generator: Generator, precision: str) -> bytes:
    import openvino  # optional

    module = folded_for_inference(generator.module).float().eval()
    arch = module.arch
    try:
        model = traced(module, torch.zeros(1, arch.channels_in, *2 * [max(64, arch.stride)]))
        model.reshape([-1, arch.channels_in, -1, -1])
        with kept_signal_stack():
            package = openvino.Core().compile_model(model, "CPU", _options(precision)).export_model()
    except Exception as error:  # whatever the compiler raises, another backend can do the work
        reason = first_line(error)
        raise BackendUnavailable(f"OpenVINO could not compile this generator: {reason}") from error
    return package.getvalue() if hasattr(package, "getvalue") else bytes(package)


def _options(precision: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
    }


class _CompiledModel:
    """A model loaded by OpenVINO, which changes the signal stack of the threads that load and release it."""

    def __init__(self, package: Path, precision: str) -> None:
        """Load `package`; raises `BackendUnavailable` if OpenVINO does not accept it."""
        import openvino

        self._model: Any = None
        try:
            with kept_signal_stack():
                self._model = openvino.Core().import_model(package.read_bytes(), "CPU", _options(precision))
        except Exception as error:
            reason = first_line(error)
            raise BackendUnavailable(f"OpenVINO does not accept its package {package}: {reason}") from error

    def __call__(self, images_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; the memory of the result is overwritten by the next call."""
        result: NDArray[np.float32] = self._model([images_NCHW])[0]
        return result

    def __del__(self) -> None:
        """Release the model in whichever thread dropped it last."""
        with kept_signal_stack():
            self._model = None
