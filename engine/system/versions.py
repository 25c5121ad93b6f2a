"""Versions of installed distributions and of this package's own code."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def installed(distribution: str) -> str:
    """Return the version of an installed distribution, or `unknown`."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


@cache
def code_of(*files: str) -> str:
    """Return a hash of source files, read once per process; part of the key of anything that depends on their code.

    Where source files are not available, the hash is the version of this package.
    """
    try:
        return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]
    except OSError:
        return installed("solstice-engine")
