"""How fast training could be at most: the arithmetic of a step, over what the machine does in plain matrix products."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import RunConfig
from trainer.networks import build_networks

SIDES = {"cpu": 1024, "cuda": 8192}
"""Side of the measured matrices: large enough to reach the full rate, small enough to take no time."""
PASSES_OF_A_GENERATOR = 3
"""A call of a generator costs its forward pass, and about twice that to go back."""
PASSES_OF_A_DISCRIMINATOR = 16
"""Both discriminators: 2 calls that only pass gradients on, worth 2 forward passes, and 4 that learn, worth 3."""


def ceiling_pairs_per_s(config: RunConfig, device: torch.device) -> float:
    """Pairs per second if every multiplication of a step ran at the machine's measured matrix rate."""
    dtype = torch.bfloat16 if config.machine.precision == "bf16" else torch.float32
    return matrix_rate(device, dtype) / flops_per_pair(config)


def flops_per_pair(config: RunConfig) -> float:
    """Floating-point operations of one step on one pair, counted in the convolutions."""
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
    """Measure floating-point operations per second in products of square matrices; takes less than a second."""
    side = SIDES[device.type]
    matrix = torch.randn(side, side, device=device).to(dtype)
    matrix @ matrix  # the first one chooses and loads its kernel
    _finish(device)
    products, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        for _ in range(4):
            matrix @ matrix
        _finish(device)
        products += 4
    return 2 * side**3 * products / (time.perf_counter() - start)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
