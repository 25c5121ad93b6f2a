"""Write a generator as an ONNX file, after ONNX Runtime has computed the same with it as the fp32 module."""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import SetupError, first_line
from engine.model.card import CARD_KEY
from engine.model.network import GeneratorNetwork
from engine.model.pixels import to_network, to_pixels
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, PixelGenerator
from engine.runtime.parity import ParityResult, compare, parity_images
from engine.system.extras import install_hint
from engine.system.files import write_atomically

INPUT, OUTPUT = "images", "translated"

MAX_ONNX_BYTES = (1 << 31) - (1 << 20)
"""Bytes of weights in one file: its format allows 2 GiB altogether."""

FP32_MAX_ERROR = 1
"""Largest difference of a pixel in fp32, in steps of 255: values on the edge between two are rounded either way."""

Run = Callable[[Tensor], Tensor]


def export_onnx(generator: Generator, path: Path, *, dtype: str = "fp32", raw: bool = False) -> ParityResult:
    """Write `generator` to `path` atomically, and return how far ONNX Runtime is from the fp32 module with it.

    The file takes and returns uint8 [N, H, W, 3], or with `raw` float32 [N, C, H, W] in [-1, 1]; N, H and W are
    variable. `dtype` is that of weights and layers. Raises `SetupError` if a package is missing, the weights are too
    many for one file, or the outputs differ by more than rounding.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise SetupError(f"Export to ONNX needs the package {name}: {install_hint('onnx')}.")
    module = _for_export(generator.module, DTYPES[dtype], raw=raw)
    num_bytes = sum(value.nbytes for value in module.state_dict().values())
    if num_bytes > MAX_ONNX_BYTES:
        smaller = "" if dtype == "fp16" else "; use --dtype fp16 or --to torch"
        raise SetupError(f"The weights take {num_bytes:,} bytes, more than an ONNX file holds{smaller}.")
    arch = generator.card.architecture
    data = _convert(module, _example(arch.stride, arch.channels_in, raw=raw), arch.stride, generator.card.to_json())
    return write_verified(generator, path, data, dtype=dtype, raw=raw)


def write_verified(generator: Generator, path: Path, data: bytes, *, dtype: str, raw: bool) -> ParityResult:
    """Write an ONNX file's content to `path` atomically if ONNX Runtime computes with it what `generator` does.

    Raises `SetupError` with the measured difference otherwise.
    """
    result = verify(generator, _session(data, raw=raw, channels=generator.card.architecture.channels_in))
    passed = result.passed if dtype != "fp32" else result.max_error <= FP32_MAX_ERROR
    if not passed:
        raise SetupError(f"{path} is not written: ONNX Runtime's output differs from the fp32 module's ({result}).")
    write_atomically(path, data)
    return result


def verify(generator: Generator, run: Run) -> ParityResult:
    """Compare `run`, a function of uint8 [N, H, W, 3], with the fp32 module on images of three sizes."""
    return compare(generator, run, _images(generator.card.architecture.stride))


def _images(stride: int) -> list[Tensor]:
    """Return batches of three sizes, with 4, 2 and 1 images."""
    images = parity_images(stride)
    images += [torch.cat([images[-1]] * 2, dim=1)] * (3 - len(images))
    return [images_NHWC[:batch] for batch, images_NHWC in zip((4, 2, 1), images, strict=True)]


class FloatGenerator(nn.Module):
    """A generator from float32 [N, C, H, W] to the same, which computes in its own type."""

    def __init__(self, module: GeneratorNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.generator = module.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Translate float32 [N, C, H, W] in [-1, 1]."""
        made: Tensor = self.generator(images.to(self.dtype))
        return made.float()


def _for_export(module: GeneratorNetwork, dtype: torch.dtype, *, raw: bool) -> nn.Module:
    module = copy.deepcopy(module).eval()
    return FloatGenerator(module, dtype) if raw else PixelGenerator(module, dtype)


def _example(stride: int, channels: int, *, raw: bool) -> Tensor:
    """Return an input of sides that differ from each other, which a compiler would otherwise take for equal."""
    rows, columns = 2 * max(stride, 16), 3 * max(stride, 16)
    if raw:
        return torch.zeros(2, channels, rows, columns)
    return torch.zeros(2, rows, columns, 3, dtype=torch.uint8)


def _convert(module: nn.Module, example: Tensor, stride: int, card: str) -> bytes:
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    first = 1 if example.dtype == torch.uint8 else 2
    sizes = {0: batch, first: stride * rows, first + 1: stride * columns}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # torchvision, which it would like to register, is not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch that a user cannot act on
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error)
        raise SetupError(f"PyTorch {torch.__version__} cannot export this network to ONNX: {reason}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    model: Any = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        for place, name in zip((0, first, first + 1), ("batch", "height", "width"), strict=True):
            value.type.tensor_type.shape.dim[place].dim_param = name
    for node in model.graph.node:  # traces of this program's source code
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    model.metadata_props.add(key=CARD_KEY, value=card)
    data: bytes = model.SerializeToString()
    return data


def _session(data: bytes, *, raw: bool, channels: int) -> Run:
    """Return ONNX Runtime with a file's content, as a function of uint8 [N, H, W, 3]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(pixels_NHWC: Tensor) -> Tensor:
        given = to_network(pixels_NHWC, torch.float32, channels).contiguous() if raw else pixels_NHWC.contiguous()
        made = torch.from_numpy(session.run(None, {INPUT: given.numpy()})[0])
        return to_pixels(made) if raw else made

    return run
