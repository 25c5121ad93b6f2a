"""Pool of past translations for training the discriminators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class History:
    """The last `capacity` translations, mixed into the batches of a discriminator.

    Section 4 of the CycleGAN paper, after Shrivastava et al., CVPR 2017: reduces oscillation between generator and
    discriminator.
    """

    def __init__(self, capacity: int, random: torch.Generator) -> None:
        self.capacity = capacity
        self._random = random
        self._images: list[Tensor] = []

    def exchange(self, made: Tensor) -> Tensor:
        """Store translations [N, 3, H, W] and return as many: each is the new one or, half of the time, a past one.

        Until the pool is full, the new ones are returned. A past translation that is returned is replaced by the new
        one.
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
        """Return the images and the random state."""
        return {"images": [image.cpu() for image in self._images], "random": self._random.get_state()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the output of `state_dict`."""
        self._images = [image.to(device) for image in state["images"]]
        self._random.set_state(state["random"])
