"""Photos and crops of each training step, as a pure function of the step's number.

There is no running random stream: a resumed run, or another number of reading threads, gets the same crops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """One random crop of one photo."""

    photo: int
    """Index of the photo in its domain."""
    top: float
    """Vertical position of the crop, from 0 at the top to 1 at the bottom."""
    left: float
    """Horizontal position, from 0 at the left to 1 at the right."""
    mirror: bool
    """Flip left and right."""

    def corner(self, height: int, width: int, crop: int) -> tuple[int, int]:
        """Return the first row and column of a square of `crop` pixels in a photo of `height` x `width`."""
        return round(self.top * (height - crop)), round(self.left * (width - crop))


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws unpaired crops: each epoch shows every photo of the larger domain once, in a new order.

    Of the smaller domain the first ones of its own new order come again. Processes of one data-parallel run
    share the order and take turns in it.
    """

    photos_a: int
    photos_b: int
    batch: int
    flip: bool
    seed: int
    process: int = 0
    processes: int = 1

    @property
    def pairs_per_step(self) -> int:
        """Pairs per step, over all processes."""
        return self.batch * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Steps that show every photo of the larger domain once."""
        return math.ceil(max(self.photos_a, self.photos_b) / self.pairs_per_step)

    def cuts(self, step: int) -> tuple[list[Cut], list[Cut]]:
        """Return the crops of A and of B of step number `step`, counted from 0, for this process."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.pairs_per_step + self.process * self.batch
        return (
            self._cuts_of_domain(0, self.photos_a, epoch, first),
            self._cuts_of_domain(1, self.photos_b, epoch, first),
        )

    def _cuts_of_domain(self, domain: int, photos: int, epoch: int, first: int) -> list[Cut]:
        order = np.random.default_rng((self.seed, domain, epoch)).permutation(photos)
        cuts = []
        for place in range(first, first + self.batch):
            top, left, mirror = np.random.default_rng((self.seed, domain, epoch, place)).random(3).tolist()
            cuts.append(Cut(int(order[place % photos]), top, left, self.flip and mirror < 0.5))
        return cuts
