"""The before-and-after page of a run: one self-contained HTML file."""

from typing import Literal

ReportKind = Literal["sample", "all"]
"""Which photos the page shows."""
