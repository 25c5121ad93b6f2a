"""Keep PyTorch's operators in the thread that calls them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch's CPU operators in the calling thread alone.

    For stages that run in several threads anyway: threads of their own would wait for each other, and a waiting thread
    of OpenMP uses a core. Costs the start of a thread, unless the calling thread has called `keep_to_one_thread`.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    keep_to_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_to_one_thread() -> None:
    """Run PyTorch's CPU operators in the calling thread alone from now on; for threads of one stage.

    PyTorch keeps the number of threads per thread, but setting it also sets the default of threads that use PyTorch for
    the first time; another thread sets that back.
    """
    before = torch.get_num_threads()
    if before == 1:
        return
    torch.set_num_threads(1)
    restorer = threading.Thread(target=torch.set_num_threads, args=(before,), name="restore-num-threads")
    restorer.start()
    restorer.join()
