"""`solstice import` converts checkpoints, prints its assumptions, and compares with an image of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from engine.cli.import_ import import_model
from engine.errors import SetupError
from engine.model.card import Architecture
from engine.model.network import build_generator
from engine.model.weights import load_generator
from tests.engine.model import layouts
from tests.engine.model.layouts import Discriminator, Reference, Unet, randomised
from tests.images import picture


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(import_model, [str(argument) for argument in arguments])


def saved(content: Any, tmp_path: Path) -> Path:
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(content, path)
    return path


def refused(*arguments: str | Path) -> str:
    """Run an import that must fail; return its error message."""
    model = Path(arguments[1])
    result = run(*arguments)
    assert isinstance(result.exception, SetupError), result.output
    assert [path for path in model.parent.iterdir() if "safetensors" in path.name or path.name[0] == "."] == []
    sentence = str(result.exception)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_checkpoint_becomes_a_model_with_the_same_weights(tmp_path: Path) -> None:
    module = build_generator(Architecture(blocks=6, ngf=2, affine=True))
    path, model = saved(module.state_dict(), tmp_path), tmp_path / "h2z.safetensors"
    options = ["--source-domain", "horse", "--target-domain", "zebra", "--training-size", "256", "--licence", "MIT"]
    result = run(path, model, *options)
    assert result.exit_code == 0, result.output
    assert "ResNet-6, ngf 2, affine" in result.output
    generator = load_generator(model)
    card = generator.card
    assert (card.name, card.source_domain, card.target_domain, card.training_size) == ("h2z", "horse", "zebra", 256)
    assert card.licence == "MIT"
    loaded = generator.module.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in module.state_dict().items())


def test_assumptions_are_printed_and_stored_on_the_card(tmp_path: Path) -> None:
    path, model = saved({"netG_A": Reference(1).state_dict()}, tmp_path), tmp_path / "model.safetensors"
    result = run(path, model)
    assumed = (
        "Assumed, as the file cannot tell: instance norms (--norm); padding by reflection in the residual blocks "
        "(--padding); the output is not added to the input (--learn-residual); the rest as in the original: "
        "reflection at the borders of the image, ReLU, tanh at the end, values from -1 to 1."
    )
    assert assumed in result.output
    assert "Compare with an image that the old code made: --check INPUT EXPECTED." in result.output
    assert load_generator(model).card.notes == f"Imported from latest_net_G_A.pth, netG_A. {assumed}"


def test_ambiguous_norms_are_assumptions_too(tmp_path: Path) -> None:
    """A GroupNorm has the keys of an InstanceNorm with scale and shift."""
    path, model = (
        saved(Reference(1, norm=lambda n: nn.GroupNorm(1, n)).state_dict(), tmp_path),
        tmp_path / "m.safetensors",
    )
    assert "Assumed, as the file cannot tell: instance norms with scale and shift; padding" in run(path, model).output


def test_a_given_option_is_not_an_assumption(tmp_path: Path) -> None:
    path, model = saved(Reference(1).state_dict(), tmp_path), tmp_path / "model.safetensors"
    result = run(path, model, "--norm", "none", "--padding", "zero", "--learn-residual")
    assert "Assumed, as the file cannot tell: the rest as in the original" in result.output
    arch = load_generator(model).module.arch
    assert (arch.norm, arch.padding, arch.learn_residual) == ("none", "zero", True)


def made_by(network: nn.Module, tmp_path: Path, suffix: str = ".png") -> tuple[Path, Path]:
    """Save an image and its translation by `network`, truncated to integers as the reference's tensor2im does."""
    image = picture(48, 32)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        made = network.eval()(x)[0].permute(1, 2, 0)
    paths = tmp_path / "real_A.png", tmp_path / f"fake_B{suffix}"
    image.save(paths[0])
    Image.fromarray(((made + 1) / 2 * 255).numpy().astype(np.uint8)).save(paths[1])
    return paths


class Residual(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.network(x)
        return (x + made).clamp(-1, 1)


def with_zero_pads(network: nn.Module) -> nn.Module:
    """Replace padding by layers that pad with zeros, which does not change the keys."""
    for block in network.modules():
        if isinstance(block, layouts.Block):
            block.conv_block[0] = block.conv_block[4] = nn.ZeroPad2d(1)
    return network


SILENT: dict[str, tuple[nn.Module, str, list[str]]] = {
    "padding by repetition": (randomised(Reference(3, padding="replicate")), "reference", ["--padding", "replicate"]),
    "padding with zeros": (with_zero_pads(randomised(Reference(3))), "reference", ["--padding", "zero"]),
    "no norm": (randomised(Reference(1, norm=layouts.no_norm)), "reference", ["--norm", "none"]),
    "instance norm without biases": (randomised(Reference(1, bias=False)), "reference", ["--norm", "instance"]),
    "statistics used": (randomised(Reference(1, norm=layouts.batch)), "before 0.4.1", ["--norm", "batch"]),
    "residual": (Residual(randomised(Reference(1))), "inner", ["--learn-residual"]),
}
"""Networks that import without an error and compute something else, unless the options are given."""


def state_of(network: nn.Module, kind: str) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    if kind == "inner":
        return {key.removeprefix("network."): value for key, value in state.items()}
    return {key: value for key, value in state.items() if kind == "reference" or "num_batches" not in key}


@pytest.mark.parametrize("kind", SILENT)
def test_the_comparison_refuses_a_wrong_import_and_names_the_right_options(kind: str, tmp_path: Path) -> None:
    network, layout, options = SILENT[kind]
    path, model = saved(state_of(network, layout), tmp_path), tmp_path / "model.safetensors"
    given, expected = made_by(network, tmp_path)
    check = ("--check", given, expected)
    sentence = refused(path, model, *check)
    assert "output differs from the expected image" in sentence
    assert "it fits with" in sentence
    assert " ".join(options) in sentence
    result = run(path, model, *options, *check)
    assert result.exit_code == 0, result.exception
    assert "Assumed and checked: " in result.output
    assert "Its output was compared with an image that the original code made: 5" in load_generator(model).card.notes


def test_a_right_import_passes_the_comparison_with_a_png_or_jpeg(tmp_path: Path) -> None:
    network = randomised(Reference(2))
    path, model = saved(network.state_dict(), tmp_path), tmp_path / "model.safetensors"
    for suffix in (".png", ".jpg"):
        assert run(path, model, "--check", *made_by(network, tmp_path, suffix)).exit_code == 0


def test_a_gray_network_is_compared_on_gray_images(tmp_path: Path) -> None:
    network = randomised(Reference(2, channels=(1, 1)))
    path, model = saved(network.state_dict(), tmp_path), tmp_path / "model.safetensors"
    image = picture(48, 32).convert("L")
    x = torch.from_numpy(np.array(image))[None, None].float() / 127.5 - 1
    with torch.no_grad():
        made = network(x)[0, 0]
    image.save(tmp_path / "real_A.png")
    Image.fromarray(((made + 1) / 2 * 255).numpy().astype(np.uint8)).save(tmp_path / "fake_B.png")
    assert run(path, model, "--check", tmp_path / "real_A.png", tmp_path / "fake_B.png").exit_code == 0


def test_a_u_net_is_compared_at_a_multiple_of_its_stride(tmp_path: Path) -> None:
    path, model = saved(randomised(Unet(5)).state_dict(), tmp_path), tmp_path / "model.safetensors"
    given, _ = made_by(nn.Identity(), tmp_path)
    sentence = refused(path, model, "--check", given, given)
    assert "The input is 48x32, and the network takes multiples of 32 from 32" in sentence


def test_an_image_of_another_network_matches_no_combination_of_options(tmp_path: Path) -> None:
    path, model = saved(randomised(Reference(2)).state_dict(), tmp_path), tmp_path / "model.safetensors"
    check = made_by(randomised(Reference(2), seed=1), tmp_path)
    sentence = refused(path, model, "--check", *check)
    assert "of 11 other readings the nearest is --norm" in sentence or "none of the 11 other readings" in sentence


def test_images_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    path, model = saved(randomised(Reference(1)).state_dict(), tmp_path), tmp_path / "model.safetensors"
    given, _ = made_by(nn.Identity(), tmp_path)
    picture(32, 32).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no image")
    assert "The input is 48x32 and the expected image 32x32" in refused(
        path, model, "--check", given, tmp_path / "small.png"
    )
    assert "cannot be read as an image" in refused(path, model, "--check", tmp_path / "text.png", given)
    assert "cannot be read as an image" in refused(path, model, "--check", tmp_path / "missing.png", given)


def test_refusals_name_the_content_of_the_file_and_leave_no_file(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    for content, reason in (
        (Discriminator().state_dict(), "holds a discriminator (PatchGAN) of 5 convolutions, which is not imported"),
        ({"netD": Discriminator().state_dict()}, "in netD a discriminator (PatchGAN) of 5 convolutions"),
        (Reference(9, ngf=2, downs=3).state_dict(), "networks with 2 down-samplings, not 3"),
        ({"a": {"fc.weight": torch.ones(3, 2)}}, "a network that is not recognised, with the tensors fc.weight [3, 2]"),
        ({"loss": 3.0}, "holds no network"),
        (nn.Sequential(nn.Conv2d(3, 3, 3)), "and reading it would run code; save the tensors alone"),
        (
            {"G_A": Reference(1).state_dict(), "G_B": Reference(1).state_dict()},
            "choose one with --generator: G_A (a Res",
        ),
    ):
        assert reason in refused(saved(content, tmp_path), model)


def test_an_existing_model_is_kept_when_an_import_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert run(saved(Reference(1).state_dict(), tmp_path), model).exit_code == 0
    before = model.read_bytes()
    state = Reference(1).state_dict()
    state["model.4.weight"][0] = float("nan")
    assert isinstance(run(saved(state, tmp_path), model).exception, SetupError)
    assert model.read_bytes() == before


def test_a_model_file_without_its_suffix_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path / "a.pth", tmp_path / "model.pth")
    assert isinstance(result.exception, SetupError)
    assert "must end in .safetensors" in str(result.exception)


def test_an_unwritable_path_is_an_error(tmp_path: Path) -> None:
    path = saved(Reference(1).state_dict(), tmp_path)
    result = run(path, path / "model.safetensors")
    assert isinstance(result.exception, SetupError)
    assert "model.safetensors cannot be written: Not a directory." in str(result.exception)


def test_a_solstice_model_keeps_its_card(tmp_path: Path, model_file: Path) -> None:
    assert run(model_file, tmp_path / "other.safetensors").exit_code == 0
    card = load_generator(tmp_path / "other.safetensors").card
    assert (card.name, card.source_domain, card.notes) == ("other", "summer", "")
