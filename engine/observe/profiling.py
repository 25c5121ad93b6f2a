"""Names on the timeline of a profiler: NVTX ranges around the stages, for Nsight Systems."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def stage_range(name: str) -> Iterator[None]:
    """Mark the body of a `with` as a range called `name`; does nothing on a machine without a GPU."""
    if not _has_nvtx():
        yield
        return
    with torch.cuda.nvtx.range(name):
        yield


@cache
def _has_nvtx() -> bool:
    return torch.cuda.is_available()
