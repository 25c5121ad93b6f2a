"""Small file systems and folders that refuse to be written, also for root.

The campaign runs in a mount namespace of its own where the system permits one, so that its mounts end with it.
Processes that should meet a read-only folder run without the capability that lets root write everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_IN_NAMESPACE = "SOLSTICE_CAMPAIGN_NAMESPACE"
_NAMESPACES = (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount"))


def enter_namespace(arguments: Sequence[str]) -> None:
    """Run this program again with `arguments` in a mount namespace of its own; returns where none is permitted."""
    if _IN_NAMESPACE in os.environ:
        return
    os.environ[_IN_NAMESPACE] = "1"
    for command in _NAMESPACES:
        if _works([*command, "true"]):
            os.execvp(command[0], [*command, sys.executable, *arguments])


def may_mount() -> bool:
    """Return whether `small_disk` works here."""
    return _IN_NAMESPACE in os.environ and os.geteuid() == 0


def mount_small_disk(folder: Path, num_bytes: int) -> None:
    """Mount a file system of `num_bytes` in memory at `folder`, or change the size of the one that is there."""
    options = f"{'remount,' if folder.is_mount() else ''}size={num_bytes}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[None]:
    """Mount a file system of `num_bytes` in memory at `folder` for the body of a `with`."""
    mount_small_disk(folder, num_bytes)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def without_override() -> list[str] | None:
    """Return what to put before a command so that a folder's permissions hold for it; None where that is impossible."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    return prefix if _works([*prefix, "true"]) else None


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """Take the right to write into `root` and every folder below it away for the body of a `with`."""
    folders = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def _works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False
