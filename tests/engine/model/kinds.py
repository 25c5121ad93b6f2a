"""Kinds of checkpoint, what `solstice import` does with each, and the table of them in docs/generators.md.

python -m tests.engine.model.kinds      # measure again and write the table
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.assumptions import Stated
from engine.model.reference import GeneratorCheckpoint, read_checkpoint
from tests import ROOT
from tests.engine.model import layouts
from tests.engine.model.layouts import Discriminator, PytorchGan, Reference, Unet, randomised

PAGE = ROOT / "docs/generators.md"
START, END = "<!-- written by tests/engine/model/kinds.py -->\n", "<!-- end -->\n"

CYCLEGAN = "pytorch-CycleGAN-and-pix2pix"


@dataclass(frozen=True)
class Kind:
    """A network whose generator is imported."""

    origin: str
    """Where such checkpoints come from."""
    network: nn.Module
    stated: Stated = field(default_factory=Stated)
    options: str = ""
    """`stated` as options of the command line."""
    wrap: Callable[[dict[str, Tensor]], Any] = dict
    """Make the content of the file of the state dict."""


def reparametrised(network: nn.Module, norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Apply a reparametrisation to all convolutions, with the vectors that training leaves behind."""
    network = randomised(network)
    for layer in list(network.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            norm(layer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(3):  # the largest singular value is found by iteration in training
            network.train()(torch.rand(1, 3, 32, 32))
    return network.eval()


def without_counts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as PyTorch before 0.4.1 saved it."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def kinds() -> dict[str, Kind]:
    """Return all kinds of generators that are imported, with weights that matter."""
    made = {
        "ResNet of 6 blocks": Kind(CYCLEGAN, Reference(6)),
        "ResNet of 9 blocks": Kind(CYCLEGAN, Reference(9, ngf=2)),
        "with dropout layers": Kind(f"{CYCLEGAN} without `--no_dropout`", Reference(dropout=True)),
        "with zero padding": Kind(f"{CYCLEGAN}, `padding_type='zero'`", Reference(padding="zero")),
        "with zero padding and dropout": Kind(CYCLEGAN, Reference(padding="zero", dropout=True)),
        "with replicate padding": Kind(
            f"{CYCLEGAN}, `padding_type='replicate'`",
            Reference(padding="replicate"),
            Stated(padding="replicate"),
            "--padding replicate",
        ),
        "with batch norm": Kind(f"{CYCLEGAN}, `--norm batch`", Reference(norm=layouts.batch, bias=False)),
        "with batch norm and biases": Kind("networks written by hand", Reference(norm=layouts.batch)),
        "with batch norm, before PyTorch 0.4.1": Kind(
            CYCLEGAN, Reference(norm=layouts.batch, bias=False), wrap=without_counts
        ),
        "with batch norm and biases, before PyTorch 0.4.1": Kind(
            "networks written by hand",
            Reference(norm=layouts.batch),
            Stated(norm="batch"),
            "--norm batch",
            without_counts,
        ),
        "without norms": Kind(f"{CYCLEGAN}, `--norm none`", Reference(norm=layouts.no_norm, bias=False)),
        "without norms, with biases": Kind(
            "networks written by hand", Reference(norm=layouts.no_norm), Stated(norm="none"), "--norm none"
        ),
        "with affine instance norm": Kind("many derivatives", Reference(norm=layouts.affine)),
        "with stored statistics": Kind("`track_running_stats=True`", Reference(norm=layouts.tracked)),
        "gray": Kind(f"{CYCLEGAN}, `--input_nc 1 --output_nc 1`", Reference(channels=(1, 1))),
        "gray to colour": Kind(f"{CYCLEGAN}, `--input_nc 1`", Reference(channels=(1, 3))),
        "with alpha": Kind(f"{CYCLEGAN}, `--input_nc 4 --output_nc 4`", Reference(channels=(4, 4))),
        "with low-pass filters": Kind("CUT, FastCUT", Reference(down="blur", up="blur")),
        "with low-pass filters and dropout": Kind("CUT, FastCUT", Reference(down="blur", up="blur", dropout=True)),
        "with nearest up-sampling": Kind("PyTorch-GAN", PytorchGan()),
        "with nearest up-sampling and reflection": Kind("derivatives", PytorchGan(reflect=True)),
        "U-Net of 7 levels": Kind(f"{CYCLEGAN}, `--netG unet_128`", Unet(7)),
        "U-Net of 8 levels": Kind(f"{CYCLEGAN}, `--netG unet_256`", Unet(8)),
        "U-Net with instance norm": Kind(CYCLEGAN, Unet(5, norm=layouts.instance, bias=True)),
        "U-Net without norms, gray": Kind(CYCLEGAN, Unet(5, norm=layouts.no_norm, channels=(1, 1))),
    }
    for kind in made.values():
        randomised(kind.network)
    spectral = nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm
    made |= {
        "with spectral norm, old form": Kind("derivatives", reparametrised(Reference(1), spectral[0])),
        "with spectral norm": Kind("derivatives", reparametrised(Reference(1), spectral[1])),
        "with weight norm": Kind("derivatives", reparametrised(Reference(1), nn.utils.parametrizations.weight_norm)),
        "U-Net with spectral norm": Kind("derivatives", reparametrised(Unet(5), spectral[1])),
    }
    return made


def refusals() -> dict[str, tuple[str, Any]]:
    """Return kinds that are refused, each with where it comes from and the content of a file."""
    state = Reference(1).state_dict()
    broken = {**state, "model.4.bias": torch.full((8,), float("nan"))}
    return {
        "discriminator": (CYCLEGAN, Discriminator().state_dict()),
        "both generators, none chosen": ("many projects", {"netG_A2B": state, "netG_B2A": state}),
        "ResNet with 4 down-samplings": ("pix2pixHD", Reference(9, ngf=2, downs=4).state_dict()),
        "ResNet that turns 2 channels to 3": (CYCLEGAN, Reference(1, channels=(2, 3)).state_dict()),
        "U-Net of PyTorch-GAN": (
            "PyTorch-GAN's pix2pix",
            {f"{name}.weight": torch.zeros(4, 4, 4, 4) for name in ("down1.model.0", "up1.model.0", "final.2")},
        ),
        "U-GAT-IT": (
            "U-GAT-IT",
            {f"{name}.weight": torch.zeros(4, 4, 1, 1) for name in ("gamma", "beta", "UpBlock1_1.conv1", "gap_fc")},
        ),
        "weights that are no numbers": ("a training that diverged", broken),
        "network that is not known": ("anything else", {"encoder.0.weight": torch.zeros(32, 3, 5, 5)}),
        "whole module": ("`torch.save(network)`", nn.Sequential(nn.Conv2d(3, 3, 3))),
        "command line with a class of its own": ("training scripts", {"netG": state, "opt": Path("checkpoints")}),
    }


def difference(checkpoint: GeneratorCheckpoint, network: nn.Module) -> float:
    """Return the largest difference of an output value; the range of outputs is 2."""
    module = checkpoint.build()
    side = max(32, module.arch.stride)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, module.arch.channels_in, side, side + module.arch.stride, generator=random) * 2 - 1
    with torch.no_grad():
        expected = network.float().eval()(x)
        assert expected.std() > 0.05  # an output of one value would equal any other
        return float((module(x) - expected).abs().max())


def imported(kind: Kind, folder: Path) -> float:
    """Import a kind through a file and return its difference to the original network."""
    torch.save(kind.wrap(kind.network.state_dict()), folder / "net.pth")
    return difference(read_checkpoint(folder / "net.pth", stated=kind.stated), kind.network)


def refused(content: Any, folder: Path) -> str:
    """Return the words that a file is refused with, after its name."""
    torch.save(content, folder / "net.pth")
    try:
        read_checkpoint(folder / "net.pth").build()
    except SetupError as error:
        return str(error).removeprefix(str(folder / "net.pth")).lstrip(": ").replace("|", "\\|")
    raise AssertionError("it was imported")


def rows(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the table."""
    yield "| kind | comes from | `solstice import` | largest difference |"
    yield "| --- | --- | --- | --- |"
    for name, kind in kinds().items():
        bound = 10.0 ** math.ceil(math.log10(max(2 * imported(kind, folder), 1e-6)))
        how = f"imported with `{kind.options}`" if kind.options else "imported"
        yield f"| {name} | {kind.origin} | {how} | under {bound:.0e} |"
    for name, (origin, content) in refusals().items():
        yield f"| {name} | {origin} | refused: {refused(content, folder)} | |"


def main() -> None:
    """Write the table into the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    before, rest = PAGE.read_text().split(START)
    with tempfile.TemporaryDirectory() as folder:
        table = "\n".join(rows(Path(folder)))
    PAGE.write_text(f"{before}{START}{table}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
