"""Sheet of an epoch: photo, translation and the way back, for a few photos of each domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.codec.arrays import Pixels
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network, to_pixels
from trainer.config import RunConfig
from trainer.photos import image_paths, load_photo

PHOTOS = 4
"""Photos of each domain on a sheet."""


class EpochSheet:
    """A few photos, from the test folders where there are any, and their translations."""

    def __init__(self, config: RunConfig, load: int | None = None) -> None:
        """Read the first photos of each test folder, or of each training folder where there are no test folders.

        Their short sides are resized to `load` pixels, by default those of training.
        """
        data = config.data
        folders = data.held_out if len(data.held_out) == 2 else (data.train_a, data.train_b)
        self.paths = [image_paths(folder)[:PHOTOS] for folder in folders]
        self._a, self._b = (
            [load_photo(path, load=load or data.load, crop=data.crop) for path in paths] for paths in self.paths
        )

    def rows(self, there: nn.Module, back: nn.Module) -> list[list[Pixels]]:
        """Return rows of photo, translation, return; first for A by `there` (A to B), then for B by `back` (B to A)."""
        a_to_b, b_to_a = plain_copy(there), plain_copy(back)
        return [
            *(_there_and_back(photo, a_to_b, b_to_a) for photo in self._a),
            *(_there_and_back(photo, b_to_a, a_to_b) for photo in self._b),
        ]


def plain_copy(generator: nn.Module) -> ResnetGenerator:
    """Return an uncompiled float32 copy of a generator on the CPU, in eval mode."""
    assert isinstance(generator, ResnetGenerator)
    copy = ResnetGenerator(generator.arch)
    copy.load_state_dict({name: value.cpu() for name, value in generator.state_dict().items()})
    return copy.eval().requires_grad_(False)


@torch.inference_mode()
def _there_and_back(photo: Tensor, there: nn.Module, back: nn.Module) -> list[Pixels]:
    height, width = (side // 4 * 4 for side in photo.shape[:2])
    image = to_network(photo[None, :height, :width]).contiguous()
    made = there(image)
    returned = back(made)
    return [photo.numpy(), *(to_pixels(pixels)[0].numpy() for pixels in (made, returned))]
