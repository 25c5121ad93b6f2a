from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.bench.ceilings import (
    Machine,
    _convolution,
    file_write_per_s,
    generator_gflop,
    jpeg_decode_per_s,
    jpeg_encode_per_s,
)
from engine.bench.photos import find_scenes
from engine.model.card import Architecture


def test_the_arithmetic_of_the_published_network_is_that_of_its_layers() -> None:
    ngf, blocks, pixels = 64, 9, 256 * 256
    ends = 2 * (2 * 49 * 3 * ngf)
    down_and_up = 2 * (2 * 9 * 2 * ngf**2 / 4 + 2 * 9 * 8 * ngf**2 / 16)
    trunk = blocks * 2 * (2 * 9 * 16 * ngf**2 / 16)

    assert generator_gflop(Architecture(), 256, 256) == pytest.approx((ends + down_and_up + trunk) * pixels / 1e9)


def test_arithmetic_grows_with_the_area() -> None:
    arch = Architecture(ngf=8, blocks=2, upsample="resize")

    assert generator_gflop(arch, 128, 64) == pytest.approx(
        2 * generator_gflop(arch, 64, 64), rel=0.02
    )  # apart from the padding


@pytest.mark.parametrize("precision", ["fp32", "bf16", "a mixture"])
def test_every_ceiling_of_a_cpu_is_a_positive_rate(precision: str) -> None:
    machine = Machine(torch.device("cpu"), precision, measured_s=0.0)

    assert machine.convolution_tflops(Architecture(ngf=4, blocks=1), batch=1) > 0
    assert machine.copy_gb_per_s() > 0
    assert machine.transfer_gb_per_s(to_device=True) > 0


def test_the_packed_convolution_computes_the_same_as_the_plain_one() -> None:
    """Otherwise it would be no ceiling for the network's arithmetic."""
    x = torch.randn(2, 16, 10, 10).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, 16, 3, 3).contiguous(memory_format=torch.channels_last)

    with torch.inference_mode():
        packed = _convolution(x, weight)()

    torch.testing.assert_close(packed, F.conv2d(x, weight), rtol=1e-4, atol=1e-4)


def test_codec_and_disk_ceilings_are_positive_rates(tmp_path: Path) -> None:
    jpeg = find_scenes().jpeg(0, 64, 48)

    assert jpeg_decode_per_s([jpeg], 0.0) > 0
    assert jpeg_encode_per_s([np.zeros((48, 64, 3), np.uint8)], 0.0) > 0
    assert file_write_per_s([jpeg, jpeg], tmp_path, 0.0) > 0
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [jpeg, jpeg]
