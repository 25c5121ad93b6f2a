"""Versions of installed packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed(distribution: str) -> str:
    """Give its version, or `unknown` where it runs without being installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
