"""The tests mirror the packages: `tests/engine/codec/test_header.py` tests `engine/codec/header.py`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""
