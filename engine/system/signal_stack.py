"""Keep a thread's alternate signal stack while a native library runs.

Python's signal handlers run on the alternate stack of the main thread where it has one (faulthandler installs one).
OpenVINO installs another in the thread that loads a model, and unmaps it with the model: a signal that arrives after
that, such as SIGTERM to a worker, ends the process with a segmentation fault, because the kernel cannot store the
thread's state on memory that is gone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("num_bytes", ctypes.c_size_t)]


_libc = ctypes.CDLL(None)


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack, or its absence, when the block ends."""
    before = _Stack()
    _libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        _libc.sigaltstack(ctypes.byref(before), None)


def signal_stack() -> tuple[int | None, int]:
    """Return address and size in bytes of this thread's alternate signal stack; (None, 0) without one."""
    stack = _Stack()
    _libc.sigaltstack(None, ctypes.byref(stack))
    return stack.address, stack.num_bytes
