"""Build what is slow to build in one test process for all of them."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


def built_once(path: Path, build: Callable[[Path], object]) -> Path:
    """Return `path`, a file or folder that `build` writes in the first process that needs it; the others wait for it.

    `build` receives a temporary path with the same suffix beside `path`. Tests must not change what is at `path`.
    """
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_name(f"unfinished-{path.name}")
            build(unfinished)
            unfinished.rename(path)
    return path
