"""A pool of past translations, from which the discriminators learn too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class History:
    """The last `capacity` translations, mixed into what a discriminator sees.

    Section 4 of the CycleGAN paper, after Shrivastava et al., CVPR 2017: it keeps the two networks from
    chasing each other round in circles.
    """

    def __init__(self, capacity: int, random: torch.Generator) -> None:
        self.capacity = capacity
        self._random = random
        self._images: list[Tensor] = []

    def exchange(self, made: Tensor) -> Tensor:
        """Take in [N, 3, H, W] and give back as many: each image is new or, half of the time, a past one.

        Nothing is given back from the past until the pool is full; a past image that leaves makes room for
        the new one.
        """
        return torch.stack([self._exchange_one(image) for image in made.detach()])

    def _exchange_one(self, image: Tensor) -> Tensor:
        if len(self._images) < self.capacity:
            self._images.append(image.clone())
            return image
        if self.capacity == 0 or torch.rand((), generator=self._random) < 0.5:
            return image
        place = int(torch.randint(self.capacity, (), generator=self._random))
        past, self._images[place] = self._images[place], image.clone()
        return past

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes out next."""
        return {"images": [image.cpu() for image in self._images], "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what `state_dict` gave."""
        self._images = [image.to(device) for image in state["images"]]
        self._random.set_state(state["random"])
