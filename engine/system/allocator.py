"""Keep freed memory for the next image instead of returning it to the system after each one."""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of `mallopt` (glibc, malloc.h)."""

LARGEST_KEPT_BYTES = 48 << 20
"""Larger blocks go back to the system when they are freed; the pixels of 16 megapixels are as large.

Those that are kept leave gaps between others: with a limit of 64 MiB some images took 1.4 times the memory foretold,
with 1 GiB 1.8 times.
"""
MOST_KEPT_BYTES = 256 << 20
"""Freed memory at the end of the heap that is kept."""


def keep_freed_memory() -> bool:
    """Let all threads allocate from one heap that keeps what is freed; return whether the C library can.

    By default glibc maps each large block anew, and each of its pages costs a page fault when it is first touched; and
    each thread has a heap of its own, so that what one stage frees the next cannot use. For commands only: it changes
    the whole process, and heaps that threads have already begun stay. Settings of the user (`MALLOC_*`,
    `GLIBC_TUNABLES`) are left alone.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: LARGEST_KEPT_BYTES,
        M_TRIM_THRESHOLD: MOST_KEPT_BYTES,
    }
    results = [mallopt(parameter, value) for parameter, value in settings.items()]
    return all(results)
