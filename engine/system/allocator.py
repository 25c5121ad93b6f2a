"""Keep freed memory for the next image instead of returning it to the system after each one."""

from __future__ import annotations

import ctypes
import os

from engine.system.memory import available_bytes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of `mallopt` (glibc, malloc.h)."""

MOST_KEPT_BYTES = 256 << 20
"""Freed memory at the end of the heap that is kept at least."""


def largest_kept_bytes(available_bytes: int) -> int:
    """Return the size from which a block goes back to the system when it is freed.

    Blocks that are kept leave gaps between others, which may take as much as them again, so this is a twentieth of the
    available memory, within 64 MiB and 1 GiB. The largest block of a compiled generator, the input of its products, has
    0.8 GB at 12 megapixels; the pixels of 24 megapixels take 72 MB.
    """
    return min(max(available_bytes // 20, 64 << 20), 1 << 30)


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
    largest_kept = largest_kept_bytes(available_bytes())
    settings = {
        M_ARENA_MAX: 1,
        M_MMAP_THRESHOLD: largest_kept,
        M_TRIM_THRESHOLD: max(MOST_KEPT_BYTES, largest_kept),
    }
    results = [mallopt(parameter, value) for parameter, value in settings.items()]
    return all(results)
