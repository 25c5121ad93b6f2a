"""Data-parallel training: several processes started by `torchrun`, or one process.

Each process trains on different crops. Gradients are averaged, so that all processes hold the same weights.
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
    """The processes of a run, and the rank of this one."""

    process: int = 0
    processes: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of the tensors that are exchanged."""

    @property
    def leads(self) -> bool:
        """Whether this process writes files and logs; only the first one does."""
        return self.process == 0

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes, in one all-reduce."""
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
        """Return whether `wish` is true in any process: a signal may reach them at different steps."""
        if self.processes == 1:
            return wish
        flag = torch.tensor(float(wish), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def gather(self, thing: Any) -> list[Any]:
        """Return one picklable object of each process, by rank, in the leading process; an empty list in the others."""
        if self.processes == 1:
            return [thing]
        things = [None] * self.processes if self.leads else None
        dist.gather_object(thing, things)
        return things or []


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """Join the processes started by `torchrun`, over NCCL on GPUs and gloo on CPUs; without it, a team of one."""
    if "RANK" not in os.environ:
        yield Team()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        members = Team(dist.get_rank(), dist.get_world_size(), device)
        if not members.leads:
            logging.getLogger("trainer").setLevel(logging.ERROR)  # the first process logs for all
        yield members
    finally:
        dist.destroy_process_group()
