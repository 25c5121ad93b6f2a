"""A new model beside the default one, for a share of the jobs that name no model."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Canary:
    """A model and its share of the jobs."""

    model: str
    """Model name or file, as for `StreamConfig.models`."""
    share: float
    """0 to 1."""

    @classmethod
    def parse(cls, text: str) -> Canary:
        """Parse `NAME=5%`; raises `ValueError` for anything else and for shares outside 0% to 100%."""
        match = re.fullmatch(r"(.+)=(\d{1,3}(?:\.\d+)?)%", text)
        if match is None or float(match[2]) > 100:
            raise ValueError(f"must be NAME=SHARE%, such as summer2winter=5%, with 0% to 100%, got {text!r}")
        return cls(match[1], float(match[2]) / 100)

    def takes(self, id: str) -> bool:
        """Return whether the job of this id is among the share: the same for every worker and every delivery.

        Jobs of a smaller share are also among a larger one.
        """
        first = hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8]
        return int.from_bytes(first, "big") / 2**64 < self.share

    def __str__(self) -> str:
        return f"{self.model}={self.share * 100:g}%"
