"""Checkpoints of the reference implementation, from networks written here independently of the engine's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.reference import read_checkpoint


class Block(nn.Module):
    """A residual block laid out as in the published PyTorch code."""

    def __init__(self, channels: int, **norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels, **norm)]
            layers += [] if last else [nn.ReLU(True)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # type: ignore[no-any-return]


class Reference(nn.Module):
    """A generator laid out as in the published PyTorch code: one `nn.Sequential` called `model`."""

    def __init__(self, blocks: int, ngf: int = 4, **norm: bool) -> None:
        super().__init__()
        model: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf, **norm)]
        model += [nn.ReLU(True)]
        for width in (ngf, ngf * 2):
            model += [nn.Conv2d(width, width * 2, 3, 2, 1), nn.InstanceNorm2d(width * 2, **norm), nn.ReLU(True)]
        model += [Block(ngf * 4, **norm) for _ in range(blocks)]
        for width in (ngf * 4, ngf * 2):
            model += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1)]
            model += [nn.InstanceNorm2d(width // 2, **norm), nn.ReLU(True)]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*model)
        for layer in self.modules():
            if isinstance(layer, nn.InstanceNorm2d):
                for values in (layer.weight, layer.bias, layer.running_mean):
                    if values is not None:
                        nn.init.normal_(values.data, 0.5, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


def saved(content: Any, tmp_path: Path) -> Path:
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(content, path)
    return path


def assert_same_output(path: Path, reference: nn.Module) -> None:
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        assert torch.equal(read_checkpoint(path)(x), reference.eval()(x))


@pytest.mark.parametrize("track_running_stats", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("blocks", [6, 9])
def test_a_checkpoint_gives_the_same_output_as_the_network_that_saved_it(
    blocks: int, affine: bool, track_running_stats: bool, tmp_path: Path
) -> None:
    reference = Reference(blocks, affine=affine, track_running_stats=track_running_stats)
    path = saved(reference.state_dict(), tmp_path)
    arch = read_checkpoint(path).arch
    assert (arch.blocks, arch.ngf, arch.affine, arch.track_running_stats) == (blocks, 4, affine, track_running_stats)
    assert_same_output(path, reference)


@pytest.mark.parametrize("spelling", ["block", "DataParallel", "nested", "legacy file"])
def test_relatives_of_the_layout_are_read_as_well(spelling: str, tmp_path: Path) -> None:
    reference = Reference(6, affine=True)
    state = reference.state_dict()
    spelled: dict[str, Any] = {
        "block": {key.replace("conv_block", "block"): value for key, value in state.items()},
        "DataParallel": {f"module.{key}": value for key, value in state.items()},
        "nested": {"epoch": 3, "state_dict": state},
        "legacy file": state,
    }
    path = tmp_path / "net.pth"
    torch.save(spelled[spelling], path, _use_new_zipfile_serialization=spelling != "legacy file")
    assert_same_output(path, reference)


def test_half_precision_checkpoints_are_read_with_the_values_they_have(tmp_path: Path) -> None:
    reference = Reference(6, affine=True).half()
    assert_same_output(saved(reference.state_dict(), tmp_path), reference.float())


def test_statistics_that_old_pytorch_stored_but_never_used_are_dropped(tmp_path: Path) -> None:
    """Before PyTorch 0.4 every InstanceNorm saved running statistics, and normalised with the image's own."""
    reference = Reference(6, track_running_stats=True)
    state = {k: v for k, v in reference.state_dict().items() if not k.endswith("num_batches_tracked")}
    plain = Reference(6)
    plain.load_state_dict({k: v for k, v in state.items() if "running_" not in k})
    path = saved(state, tmp_path)
    assert not read_checkpoint(path).arch.track_running_stats
    assert_same_output(path, plain)


def changed(change: str) -> dict[str, Tensor]:
    state = Reference(6, affine=True).state_dict()
    match change:
        case "missing":
            del state["model.12.conv_block.5.bias"]
        case "shape":
            state["model.19.weight"] = torch.zeros(1, 2, 3)
        case "unknown":
            state["model.99.weight"] = torch.zeros(1)
        case "first":
            state["model.1.weight"] = torch.zeros(4, 1, 7, 7)
        case "batch norm":
            del state["model.1.bias"]
        case "blocks":
            state = {key: value for key, value in state.items() if "conv_block" not in key}
        case "gap":
            state = {key: value for key, value in state.items() if not key.startswith("model.12.")}
    return state


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("missing", r"key model\.12\.conv_block\.5\.bias is missing"),
        ("shape", r"key model\.19\.weight has shape \[1, 2, 3\]"),
        ("unknown", r"key model\.99\.weight does not belong"),
        ("first", r"key model\.1\.weight"),
        ("batch norm", r"key model\.1\.bias is missing.*batch normalisation"),
        ("blocks", r"conv_block"),
        ("gap", r"key model\.12\.conv_block"),
    ],
)
def test_what_is_no_resnet_generator_is_refused_with_the_first_key(change: str, named: str, tmp_path: Path) -> None:
    path = saved(changed(change), tmp_path)
    with pytest.raises(SetupError, match=named) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


class Payload:
    """Runs code when it is unpickled by a reader that allows it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path = saved({"model.1.weight": Payload(tmp_path / "ran")}, tmp_path)
    with pytest.raises(SetupError, match="cannot be read as a checkpoint of tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(1)], "no dictionary of tensors"),
        ({}, "no dictionary of tensors"),
        ({"model.1.weight": 3}, "key model.1.weight is not the name of a tensor"),
        ({0: torch.zeros(1)}, "key 0 is not the name of a tensor"),
    ],
)
def test_a_file_of_something_else_is_refused(content: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=reason):
        read_checkpoint(saved(content, tmp_path))


def test_a_file_that_is_no_checkpoint_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(SetupError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.pth")
    with pytest.raises(SetupError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "missing.pth")
