"""Pixels to network input and back, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from engine.model.pixels import CENTRED_SCALE, to_centred, to_luma, to_network, to_pixels


def every_value() -> torch.Tensor:
    """All bytes in all channels: uint8 [1, 16, 16, 3]."""
    return torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)


def test_the_range_is_minus_one_to_one() -> None:
    network = to_network(every_value())
    assert network.shape == (1, 3, 16, 16)
    assert (float(network.min()), float(network.max())) == (-1.0, 1.0)


def test_every_byte_survives_the_way_there_and_back() -> None:
    assert torch.equal(to_pixels(to_network(every_value())), every_value())


def test_memory_stays_channels_last_and_the_input_stays_as_it_is() -> None:
    pixels = every_value()
    assert to_network(pixels).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, every_value())


def test_results_are_rounded_to_nearest_and_clamped() -> None:
    values = torch.tensor([-9.0, -1.0, 0.0, 0.0036, 0.0043, 1.0, 9.0]).reshape(1, 1, 1, 7).expand(1, 3, 1, 7)
    assert to_pixels(values)[0, 0, :, 0].tolist() == [0, 0, 128, 128, 128, 255, 255]
    assert to_pixels(torch.full((1, 3, 1, 1), 0.0039 * 0.98 - 1 / 255)).flatten().tolist() == [127, 127, 127]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_on_results_is_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    ones = torch.ones(1, 3, 1, 1, dtype=dtype)
    assert to_pixels(ones).flatten().tolist() == [255, 255, 255]
    assert to_pixels(torch.zeros(1, 3, 1, 1, dtype=dtype)).flatten().tolist() == [128, 128, 128]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_centred_pixels_are_exact_in_any_dtype_and_proportional_to_network_input(dtype: torch.dtype) -> None:
    centred = to_centred(every_value(), dtype).double()
    assert torch.equal(centred, to_centred(every_value(), torch.float64))
    shifted = to_network(every_value(), torch.float64) * CENTRED_SCALE
    assert (shifted - centred).std() < 1e-12


def test_luma_is_pillows_and_a_gray_pixel_keeps_its_value() -> None:
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    gray = np.asarray(Image.fromarray(pixels[0].numpy()).convert("L"))
    assert np.array_equal(to_luma(pixels)[0, :, :, 0].numpy(), gray)
    assert torch.equal(to_luma(every_value()), every_value()[..., :1])


def test_one_channel_comes_out_as_three_equal_ones() -> None:
    network = to_network(every_value(), channels=1)
    assert network.shape == (1, 1, 16, 16)
    assert torch.equal(to_pixels(network), every_value())


def test_alpha_goes_in_opaque_and_is_dropped_on_the_way_out() -> None:
    network = to_network(every_value(), channels=4)
    assert network.shape == (1, 4, 16, 16)
    assert torch.equal(network[:, 3], torch.ones(1, 16, 16))
    assert torch.equal(to_pixels(network), every_value())
