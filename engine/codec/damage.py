"""The error for an image whose data contradict themselves."""

from __future__ import annotations

from engine.errors import SkipImage


class Damaged(SkipImage):
    """The data of an image contradict themselves; `--allow-damaged` translates it with a remark instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"damaged: {reason} (--allow-damaged translates it all the same)")
        self.reason = reason
