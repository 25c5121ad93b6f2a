"""Checkpoint files of several eras are read as tensors; everything else is refused in one sentence."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.checkpoint import StateDict, nested_state_dicts, read_checkpoint_file, split

TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


def saved(content: Any, tmp_path: Path, *, zipped: bool = True) -> Path:
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_files_of_both_eras_are_read(zipped: bool, tmp_path: Path) -> None:
    content, card = read_checkpoint_file(saved({"netG": TENSORS, "epoch": 3}, tmp_path, zipped=zipped))
    assert card is None
    assert content["epoch"] == 3
    assert torch.equal(content["netG"]["a.weight"], TENSORS["a.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_safetensors_are_read_whatever_their_name(suffix: str, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / f"net{suffix}")
    content, card = read_checkpoint_file(tmp_path / f"net{suffix}")
    assert (set(content), card) == (set(TENSORS), None)


def test_a_command_line_beside_the_weights_is_read_as_plain_values(tmp_path: Path) -> None:
    content, _ = read_checkpoint_file(saved({"args": argparse.Namespace(lr=0.1), "netG": TENSORS}, tmp_path))
    assert content["args"].lr == 0.1


class Payload:
    """Runs code when it is unpickled by a reader that allows it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_does_not_run(zipped: bool, tmp_path: Path) -> None:
    path = saved({"a.weight": Payload(tmp_path / "ran")}, tmp_path, zipped=zipped)
    with pytest.raises(
        SetupError, match=r"holds an object of posix\.mkdir, and reading it would run code; save the te"
    ):
        read_checkpoint_file(path)
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused_with_how_to_save_its_tensors(tmp_path: Path) -> None:
    path = saved(nn.Sequential(nn.Conv2d(3, 3, 3)), tmp_path)
    with pytest.raises(
        SetupError, match=r"object of torch\.nn\.modules.*torch\.save\(network\.state_dict\(\), NEW_FILE"
    ):
        read_checkpoint_file(path)


def program(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/__torch__.py", b"")


def old_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(name, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def flipped(path: Path) -> None:
    """Save tensors, then change one bit of a weight."""
    torch.save(TENSORS, path)
    data = bytearray(path.read_bytes())
    weight = next(tensor for tensor in TENSORS.values() if tensor.numel() > 1)
    data[bytes(data).index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(data)


def half(path: Path) -> None:
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:600])


NO_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello"), "cannot be read as a checkpoint of tensors"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a checkpoint of tensors"),
    "flipped": (flipped, r"is damaged: the checksum of its \S+ is wrong; copy or download it again"),
    "half": (half, "it is damaged, incomplete, or no PyTorch checkpoint"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>"), "is a web page"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "Keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 64), "is an HDF5 file, as Keras"),
    "program": (program, r"is a program \(TorchScript or torch.export\), which is code"),
    "tar": (old_tar, r"is a tar file; if an early PyTorch wrote it and you trust it, save it again"),
    "folder": (lambda path: path.mkdir(), "is not a regular file"),
    "pipe": (lambda path: os.mkfifo(path), "is not a regular file"),
    "list": (lambda path: torch.save([torch.zeros(1)], path), "holds no dictionary of tensors but a list"),
    "tensor": (lambda path: torch.save(torch.zeros(1), path), "holds no dictionary of tensors but a single tensor"),
    "nothing": (lambda path: torch.save({}, path), "holds no dictionary of tensors but nothing"),
    "safetensors": (lambda path: path.write_bytes(b"\0" * 8 + b"{ broken"), "is not a readable .safetensors file"),
    "missing": (lambda path: None, "There is no checkpoint"),
}


def test_a_file_that_was_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "net.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint_file(tmp_path / "net.pth")[0].keys() == TENSORS.keys()


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_a_file_of_something_else_is_refused_with_what_it_is(kind: str, tmp_path: Path) -> None:
    make, reason = NO_CHECKPOINTS[kind]
    make(tmp_path / "net.pth")
    with pytest.raises(SetupError, match=reason) as caught:
        read_checkpoint_file(tmp_path / "net.pth")
    assert str(tmp_path / "net.pth") in str(caught.value)


def test_tensors_without_values_of_their_own_are_left_out() -> None:
    """A few bytes can describe a tensor that would fill the memory when it is copied."""
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    content = {**TENSORS, "huge": huge, "sparse": torch.eye(3).to_sparse(), "meta": torch.ones(3, device="meta")}
    (found,) = nested_state_dicts(content)
    assert set(found.tensors) == set(TENSORS)


def test_dictionaries_of_tensors_are_found_from_the_outside_in() -> None:
    optimiser = {"state": {0: {"exp_avg": torch.ones(2, 2)}}}
    content = {"a": {"b": TENSORS, "loss": torch.tensor(3.0)}, "c": TENSORS, 0: TENSORS, "adam": optimiser}
    assert [found.name for found in nested_state_dicts(content)] == ["a.b", "c"]


def is_network(tensors: dict[str, Tensor]) -> bool:
    return set(tensors) == set(TENSORS)


@pytest.mark.parametrize(
    ("prefixes", "names"),
    [
        ([""], [""]),
        (["module."], [""]),
        (["module._orig_mod.module."], [""]),
        (["x.", "y.module."], ["x", "y"]),
        (["one.two.", "one.three."], ["one.two", "one.three"]),
        (["a.b.c.d.e.f.g.h."], ["a.b.c.d.e.f.g.h"]),
    ],
)
def test_prefixes_are_removed_until_the_rest_is_a_network(prefixes: list[str], names: list[str]) -> None:
    tensors = {f"{prefix}{key}": value for prefix in prefixes for key, value in TENSORS.items()}
    parts = split(StateDict("", {**tensors, "n_averaged": torch.tensor(1)}), is_network)
    assert [part.name for part in parts] == names
    assert all(is_network(part.tensors) for part in parts)


def test_a_state_dict_without_a_network_is_returned_whole() -> None:
    tensors = {f"{'x.' * 20}{key}": value for key, value in TENSORS.items()}
    (part,) = split(StateDict("deep", tensors), is_network)
    assert part == StateDict("deep", tensors)
