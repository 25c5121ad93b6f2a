"""NVTX ranges for the timeline of a profiler such as Nsight Systems."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage_range(name: str) -> Iterator[None]:
    """Mark a `with` block as an NVTX range `name`; does nothing on a machine without a GPU."""
    torch = sys.modules.get("torch")  # without torch loaded there is no work on a GPU to mark
    if torch is None or not torch.cuda.is_available():
        yield
        return
    with torch.cuda.nvtx.range(name):
        yield
