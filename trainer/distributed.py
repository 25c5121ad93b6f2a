"""Several processes that train one pair together, started by `torchrun`; one process alone is the plain case.

Each process sees other crops; gradients are averaged, so all hold the same weights at all times.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Team:
    """The processes of a run and this one's place among them."""

    process: int = 0
    processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where messages travel from."""

    @property
    def leads(self) -> bool:
        """Only the first process writes files and talks."""
        return self.process == 0

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes; one message for all of them."""
        if self.processes == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.processes
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def any(self, wish: bool) -> bool:
        """Tell whether any process wishes so: a signal may reach them at different steps."""
        if self.processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def gather(self, thing: Any) -> list[Any]:
        """Collect one picklable thing of each process, in their order, in the leader; empty in the others."""
        if self.processes == 1:
            return [thing]
        things = [None] * self.processes if self.leads else None
        dist.gather_object(thing, things)
        return things or []


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Join the processes that `torchrun` started, over NCCL on GPUs and gloo on CPUs; alone without it."""
    if "RANK" not in os.environ:
        yield Team()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        members = Team(dist.get_rank(), dist.get_world_size(), device)
        if not members.leads:
            logging.getLogger("trainer").setLevel(logging.ERROR)  # one process talks for all
        yield members
    finally:
        dist.destroy_process_group()
