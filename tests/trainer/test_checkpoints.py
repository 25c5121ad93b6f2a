from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from engine.errors import SetupError, StopRun
from trainer import checkpoints
from trainer.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, take
from trainer.config import RunConfig
from trainer.networks import build_networks
from trainer.step import Step


@pytest.fixture
def checkpoint(config: RunConfig) -> Checkpoint:
    networks = build_networks(config.networks, seed=1)
    step = Step(networks, config.losses, config.schedule, config.machine, torch.device("cpu"))
    return take(step, config, 7, {"machine": "test"}, [step.history_state()])


def test_a_checkpoint_survives_saving_and_loading(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.config, loaded.steps_done, loaded.facts) == (checkpoint.config, 7, {"machine": "test"})
    for name, value in checkpoint.networks["a_to_b"].items():
        assert torch.equal(value, loaded.networks["a_to_b"][name])


def test_a_full_disk_is_an_error_and_the_last_checkpoint_is_kept(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as first:
        first.setattr("os.fsync", full)
        with pytest.raises(StopRun, match="there is none yet: free space, then start again"):
            save_checkpoint(tmp_path, checkpoint)
    save_checkpoint(tmp_path, checkpoint)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StopRun, match="last checkpoint is kept"):
        save_checkpoint(tmp_path, checkpoint)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"hello", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_damaged_or_foreign_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(SetupError, match=r"checkpoint\.pt"):
        load_checkpoint(tmp_path)


def test_a_flipped_bit_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint)
    data = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(data)
    with pytest.raises(SetupError, match=r"damaged: the checksum of its \S+ is wrong"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_version_is_an_error(tmp_path: Path) -> None:
    torch.save({"format": checkpoints.FORMAT + 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(SetupError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path)


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="solstice-train fit"):
        load_checkpoint(tmp_path)
