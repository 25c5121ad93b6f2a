"""Checkpoints of many projects become generators with the same output as the network that saved them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import SetupError
from engine.model.assumptions import Stated
from engine.model.card import Architecture, Card
from engine.model.network import build_generator
from engine.model.reference import read_checkpoint
from engine.model.weights import save_generator
from tests.engine.model import layouts
from tests.engine.model.kinds import difference, without_counts
from tests.engine.model.layouts import Discriminator, Reference, Unet, randomised


def saved(content: Any, tmp_path: Path) -> Path:
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(content, path)
    return path


def test_spectral_norm_of_pytorch_1_0_is_folded(tmp_path: Path) -> None:
    """It stored the normalised weight, and no second singular vector."""
    network = randomised(Reference(1))
    state = dict(network.state_dict())
    for key in [key for key in state if key.endswith(".weight")]:
        state[f"{key}_orig"], state[f"{key}_u"] = state[key] * 3, torch.ones(len(state[key]))
    assert difference(read_checkpoint(saved(state, tmp_path)), network) < 2e-6


def test_half_precision_checkpoints_are_read_with_the_values_they_have(tmp_path: Path) -> None:
    network = randomised(Reference(2, norm=layouts.affine)).half()
    assert difference(read_checkpoint(saved(network.state_dict(), tmp_path)), network) < 2e-6


def test_statistics_that_old_pytorch_stored_but_never_used_are_dropped_and_announced(tmp_path: Path) -> None:
    """Before PyTorch 0.4 every InstanceNorm saved running statistics, and normalised with the image's own."""
    network = randomised(Reference(2, norm=layouts.tracked))
    plain = Reference(2, norm=layouts.affine)
    plain.load_state_dict(
        {key: value for key, value in without_counts(network.state_dict()).items() if "running_" not in key}
    )
    checkpoint = read_checkpoint(saved(without_counts(network.state_dict()), tmp_path))
    assert difference(checkpoint, plain) < 2e-6
    assert "instance norms with scale and shift, the statistics in the file left out" in [
        assumption.text for assumption in checkpoint.readings[0].assumptions
    ]


def test_batch_norms_of_pytorch_before_0_4_1_keep_their_statistics(tmp_path: Path) -> None:
    network = randomised(Reference(2, norm=layouts.batch, bias=False))
    assert difference(read_checkpoint(saved(without_counts(network.state_dict()), tmp_path)), network) < 2e-6
    network = randomised(Reference(2, norm=layouts.batch))
    path = saved(without_counts(network.state_dict()), tmp_path)
    assert difference(read_checkpoint(path), network) > 0.1  # those of an InstanceNorm, as far as the keys can tell
    assert difference(read_checkpoint(path, stated=Stated(norm="batch")), network) < 2e-6


def test_instance_can_be_stated_for_norms_with_stored_statistics(tmp_path: Path) -> None:
    """The reference's own test.py normalises by each image's statistics unless it is called with --eval."""
    network = randomised(Reference(2, norm=layouts.batch, bias=False))
    own = Reference(2, norm=layouts.affine, bias=False)
    own.load_state_dict(
        {key: value for key, value in without_counts(network.state_dict()).items() if "running_" not in key}
    )
    path = saved(network.state_dict(), tmp_path)
    assert difference(read_checkpoint(path, stated=Stated(norm="instance")), own) < 2e-6


def test_a_solstice_model_is_read_by_its_card(tmp_path: Path) -> None:
    module = randomised(build_generator(Architecture(blocks=1, ngf=4, padding="replicate", upsample="resize")))
    save_generator(tmp_path / "model.safetensors", module, Card(name="n"), torch.float32)  # type: ignore[arg-type]
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert difference(checkpoint, module) == 0
    assert checkpoint.readings[0].assumptions == ()
    with pytest.raises(SetupError, match="whose card describes it"):
        read_checkpoint(tmp_path / "model.safetensors", stated=Stated(norm="none"))


STATE = randomised(Reference(1)).state_dict()
OTHER = randomised(Reference(1), seed=1).state_dict()
DISCRIMINATOR = Discriminator().state_dict()
ADAM = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 3, 7, 7)}}, "param_groups": [{"lr": 0.1}]}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPERS: dict[str, Any] = {
    name: {name: STATE, "epoch": 3, "optimizer": ADAM}
    for name in (
        *("netG", "netG_A", "netG_A2B", "netG_B2A", "model", "model_state_dict", "state_dict", "params_ema", "params"),
        *("generator", "G", "G_AB", "generator_state_dict", "gen", "net", "weights", "ema"),
    )
} | {
    "plain": STATE,
    "Sequential": {key.removeprefix("model."): value for key, value in STATE.items()},
    "PyTorch-GAN's blocks": {key.replace("conv_block", "block"): value for key, value in STATE.items()},
    "DDP": prefixed("module.", STATE),
    "DDP twice": prefixed("module.module.", STATE),
    "compile": prefixed("_orig_mod.", STATE),
    "DDP of compile": prefixed("module._orig_mod.", STATE),
    "compile of DDP": prefixed("_orig_mod.module.", STATE),
    "attribute model": prefixed("model.", STATE),
    "averaged": {"n_averaged": torch.tensor(7), **prefixed("module.", STATE)},
    "Lightning": {"state_dict": {**prefixed("netG.", STATE), **prefixed("netD.", DISCRIMINATOR)}, "epoch": 1},
    "Lightning with compile and DDP": {"state_dict": prefixed("genX._orig_mod.module.", STATE)},
    "nested": {"checkpoint": {"models": {"netG": {"module": prefixed("module.", STATE)}}}},
    "averaged beside the latest": {"params": OTHER, "params_ema": STATE},
    "with a discriminator": {"netG": STATE, "netD": DISCRIMINATOR, "loss": 0.5},
    "ordered": OrderedDict(STATE),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_around_a_generator_are_removed(wrapper: str, tmp_path: Path) -> None:
    network = Reference(1)
    network.load_state_dict(STATE)
    assert difference(read_checkpoint(saved(WRAPPERS[wrapper], tmp_path)), network) < 2e-6


BOTH: dict[str, tuple[Any, str, str]] = {
    "netG_A2B": ({"netG_A2B": STATE, "netG_B2A": OTHER}, "A2B", "B2A"),
    "G_A": ({"G_A": STATE, "G_B": OTHER, "D_A": DISCRIMINATOR}, "a2b", "b2a"),
    "by name": ({"G_AB": STATE, "G_BA": OTHER}, "G_AB", "G_BA"),
    "Lightning": ({"state_dict": {**prefixed("genX.", STATE), **prefixed("genY.", OTHER)}}, "genX", "state_dict.genY"),
    "A2B in prefixes": ({"state_dict": {**prefixed("genB2A.", OTHER), **prefixed("genA2B.", STATE)}}, "A2B", "B2A"),
}


@pytest.mark.parametrize("kind", BOTH)
def test_one_of_two_generators_is_chosen_by_name_or_direction(kind: str, tmp_path: Path) -> None:
    content, first, second = BOTH[kind]
    path = saved(content, tmp_path)
    for wanted, state in ((first, STATE), (second, OTHER)):
        network = Reference(1)
        network.load_state_dict(state)
        assert difference(read_checkpoint(path, generator=wanted), network) < 2e-6
    with pytest.raises(SetupError, match=r"holds several generators, choose one with --generator: .*(G_|gen)"):
        read_checkpoint(path)
    with pytest.raises(SetupError, match=r"--generator nothing is not in it; the file holds .*a ResNet generator of 1"):
        read_checkpoint(path, generator="nothing")


def changed(change: str) -> dict[str, Tensor]:
    state = dict(Reference(2, norm=layouts.affine).state_dict())
    match change:
        case "missing":
            del state["model.10.conv_block.5.bias"]
        case "missing weight":
            del state["model.13.weight"]
        case "shape":
            state["model.15.weight"] = torch.zeros(1, 2, 3)
        case "length":
            state["model.11.conv_block.2.weight"] = torch.zeros(3)
        case "unknown":
            state["model.99.weight"] = torch.zeros(1)
        case "two inputs":
            state["model.1.weight"] = torch.zeros(4, 2, 7, 7)
        case "block":
            state = {key: value for key, value in state.items() if "model.10.conv_block.5" not in key}
        case "not finite":
            state["model.4.weight"][0, 0, 0, 0] = float("nan")
        case "infinite":
            state["model.4.bias"][0] = float("inf")
        case "integers":
            state["model.4.weight"] = state["model.4.weight"].int()
    return state


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("missing", r"its convolutions have a bias, but not all of them, see model\.10\.conv_block\.5"),
        ("missing weight", r"its norms have not all the same parameters, see model\.13"),
        ("shape", r"model\.15"),
        ("length", r"model\.11\.conv_block\.2\.weight has shape \[3\], expected \[16\]"),
        ("unknown", r"model\.99"),
        ("two inputs", r"2 input channels, where Solstice builds 1, 3 or 4"),
        ("block", r"its residual block model\.10 has 1 convolutions, not two"),
        ("not finite", r"key model\.4\.weight has values that are infinite or no number"),
        ("infinite", r"key model\.4\.bias has values that are infinite or no number"),
        ("integers", r"key model\.4\.weight has type torch\.int32"),
    ],
)
def test_a_generator_with_something_wrong_is_refused_with_what_it_is(change: str, named: str, tmp_path: Path) -> None:
    path = saved(changed(change), tmp_path)
    with pytest.raises(SetupError, match=named) as caught:
        read_checkpoint(path).build()
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", ["sparse", "a repeated value", "without values"])
def test_tensors_without_ordinary_values_are_named(kind: str, tmp_path: Path) -> None:
    made = {
        "sparse": STATE["model.4.weight"].to_sparse(),
        "a repeated value": torch.zeros(1).expand(8, 4, 3, 3),
        "without values": torch.zeros(8, 4, 3, 3, device="meta"),
    }
    path = saved({"netG": {**STATE, "model.4.weight": made[kind]}}, tmp_path)
    with pytest.raises(SetupError, match=r"holds in netG tensors that are .* \(1, such as model\.4\.weight\); save"):
        read_checkpoint(path)


def test_weights_of_8_and_64_bits_are_read(tmp_path: Path) -> None:
    network = Reference(1)
    for dtype in (torch.float8_e4m3fn, torch.float64):
        state = {key: value.to(dtype) for key, value in STATE.items()}
        network.load_state_dict({key: value.float() for key, value in state.items()})
        assert difference(read_checkpoint(saved(state, tmp_path)), network) < 2e-6


def test_options_that_contradict_the_tensors_are_refused(tmp_path: Path) -> None:
    path = saved(Reference(1, norm=layouts.affine).state_dict(), tmp_path)
    with pytest.raises(SetupError, match="--norm none does not fit its tensors, which allow --norm instance"):
        read_checkpoint(path, stated=Stated(norm="none"))
    path = saved(Unet(5).state_dict(), tmp_path)
    with pytest.raises(SetupError, match="--padding does not apply to a U-Net"):
        read_checkpoint(path, stated=Stated(padding="zero"))
