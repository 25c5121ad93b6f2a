from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.runtimes import eager_fp32, openvino
from engine.model.weights import Generator


@pytest.mark.needs_openvino
def test_openvino_compiles_the_generator_without_a_warning_and_takes_every_size(
    generator: Generator, tmp_path: Path
) -> None:
    """Warnings are errors in tests."""
    translate, reference = openvino(generator, tmp_path), eager_fp32(generator, tmp_path)
    pixels_NHWC = torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8)
    difference = (translate(pixels_NHWC).int() - reference(pixels_NHWC).int()).abs().float().mean()
    assert difference < 1
