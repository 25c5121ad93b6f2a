"""Versions of installed packages, and of this one's own code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def installed(distribution: str) -> str:
    """Give its version, or `unknown` where it runs without being installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


@cache
def code_of(*files: str) -> str:
    """Give a hash of source files, read once: what they shape is outdated as soon as one of them changes.

    Where Python came without its sources, the package's version stands for them.
    """
    try:
        return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]
    except OSError:
        return installed("solstice-engine")
