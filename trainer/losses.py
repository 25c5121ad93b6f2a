"""The three losses of CycleGAN.

Zhu, Park, Isola, Efros: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
ICCV 2017. The full objective (equation 3) is

    L(G, F, D_X, D_Y) = L_GAN(G, D_Y) + L_GAN(F, D_X) + lambda * L_cyc(G, F)

to which section 5.2 adds an identity loss of 0.5 lambda.
"""

from __future__ import annotations

from torch import Tensor


def adversarial_loss(scores: Tensor, *, real: bool) -> Tensor:
    """Return the mean squared distance of discriminator scores, any shape, from 1 if `real`, else from 0.

    Section 4: the generator minimises E[(D(G(x)) - 1)^2], the discriminator E[(D(y) - 1)^2] + E[D(G(x))^2].
    """
    target = 1.0 if real else 0.0
    return (scores.float() - target).square().mean()


def discriminator_loss(real_scores: Tensor, made_scores: Tensor) -> Tensor:
    """Return half the sum of both least-squares terms; section 4 halves it so that D learns slower than G."""
    return 0.5 * (adversarial_loss(real_scores, real=True) + adversarial_loss(made_scores, real=False))


def cycle_loss(images: Tensor, returned: Tensor) -> Tensor:
    """Return one direction of equation 2, E[|F(G(x)) - x|], for [N, 3, H, W] in [-1, 1]."""
    return (returned.float() - images.float()).abs().mean()


def identity_loss(images: Tensor, kept: Tensor) -> Tensor:
    """Return one direction of section 5.2, E[|G(y) - y|]: photos of the target domain should stay as they are."""
    return (kept.float() - images.float()).abs().mean()
