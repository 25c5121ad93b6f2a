"""Run the ONNX file that a generator was read from, to find the reading that computes the same.

Unlike a checkpoint, the file holds the whole computation, so that nothing has to be assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import SetupError, first_line
from engine.model.network import GeneratorNetwork
from engine.model.pixels import to_network, to_pixels
from engine.model.reference import GeneratorCheckpoint

MAX_ERROR = 2e-3
"""Largest difference between the file's output and the generator's, where outputs are in [-1, 1]."""


def choose_by_running(checkpoint: GeneratorCheckpoint) -> tuple[GeneratorNetwork, float]:
    """Return the generator of the reading that computes what the file computes, and their largest difference.

    Raises `SetupError` if there is none.
    """
    run, example = _prepare(checkpoint.path, checkpoint.readings[0].architecture.stride)
    expected = run(example)
    errors: list[tuple[float, int]] = []
    for place, reading in enumerate(checkpoint.readings):
        errors.append((_error(checkpoint.build(reading), example, expected), place))
    error, place = min(errors)
    if not error <= MAX_ERROR:
        raise SetupError(
            f"{checkpoint.path} holds {checkpoint.seen.what}, but no network that Solstice builds computes what the "
            f"file does (the nearest, {checkpoint.readings[place].options}, differs by {error:.3f} of 2); import the "
            "PyTorch checkpoint that it was exported from."
        )
    return checkpoint.build(checkpoint.readings[place]), error


def _error(module: GeneratorNetwork, example: Tensor, expected: Tensor) -> float:
    with torch.inference_mode():
        if example.dtype == torch.uint8:
            made = to_pixels(module(to_network(example, channels=module.arch.channels_in))).float() / 127.5
            expected = expected.float() / 127.5
            # Values on the edge between two pixels are rounded either way.
            return float(((made - expected).abs() - 1.01 / 127.5).clamp(min=0).max())
        made = module(example.float())
    if made.shape != expected.shape:
        return float("inf")
    return float((made - expected.float()).abs().max())


def _prepare(path: Path, stride: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the file as a function, and an input of a shape that it takes."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
    except Exception as error:  # onnxruntime's errors have no common base class
        reason = first_line(error)
        raise SetupError(f"{path} cannot be run by ONNX Runtime, to compare: {reason}.") from error
    types: dict[str, Any] = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}
    is_pixels = given.type == "tensor(uint8)"
    if not is_pixels and given.type not in types:
        raise SetupError(f"{path} takes {given.type}, not images in floating point or uint8.")
    side = max(2 * stride, 48)
    shape = [size if isinstance(size, int) else side for size in given.shape]
    if not isinstance(given.shape[0], int):
        shape[0] = 1
    random = torch.Generator().manual_seed(0)
    example = (
        torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
        if is_pixels
        else (torch.rand(shape, generator=random) * 2 - 1).to(types[given.type])
    )

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: images.numpy()})[0])

    return run, example
