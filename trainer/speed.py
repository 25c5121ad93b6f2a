"""Upper bound of the training rate: operations of a step over the machine's measured matrix rate."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import RunConfig
from trainer.networks import build_networks

SIDES = {"cpu": 1024, "cuda": 8192}
"""Side of the measured matrices: large enough to reach the full rate, small enough to take no time."""
WINDOWS = 8
WINDOW_S = 0.05
"""Number and length of the windows in which the matrix rate is measured."""
PASSES_OF_A_GENERATOR = 3
"""Forward pass, and a backward pass of about twice its operations."""
PASSES_OF_A_DISCRIMINATOR = 16
"""Both discriminators: 2 calls that only pass gradients on, 2 forward passes each, and 4 that train, 3 each."""


def ceiling_pairs_per_s(config: RunConfig, device: torch.device) -> float:
    """Return the pairs per second of a step whose every multiplication runs at the measured matrix rate."""
    dtype = torch.bfloat16 if config.machine.precision == "bf16" else torch.float32
    return matrix_rate(device, dtype) / flops_per_pair(config)


def flops_per_pair(config: RunConfig) -> float:
    """Return the floating-point operations of one step on one pair, counted in the convolutions."""
    networks = build_networks(config.networks, seed=0)
    for _, network in networks.named():
        network.to("meta")
    image = torch.empty(1, 3, config.data.crop, config.data.crop, device="meta")
    forward = []
    for network in (networks.a_to_b, networks.real_a):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image)
        forward.append(counter.get_total_flops())
    calls = 6 if config.losses.identity else 4
    return float(forward[0] * calls * PASSES_OF_A_GENERATOR + forward[1] * PASSES_OF_A_DISCRIMINATOR)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second in products of square matrices; takes half a second.

    The best of several short windows counts, since other processes can only slow one down.
    """
    side = SIDES[device.type]
    matrix = torch.randn(side, side, device=device).to(dtype)
    matrix @ matrix  # the first product selects and loads the kernel
    _finish(device)
    return max(_rate_of_window(matrix) for _ in range(WINDOWS))


def _rate_of_window(matrix: torch.Tensor) -> float:
    products, start = 0, time.perf_counter()
    while time.perf_counter() - start < WINDOW_S:
        matrix @ matrix
        _finish(matrix.device)
        products += 1
    return 2 * len(matrix) ** 3 * products / (time.perf_counter() - start)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
