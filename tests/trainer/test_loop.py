from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.errors import SetupError, StopRun
from trainer import loop
from trainer.checkpoints import load_checkpoint
from trainer.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from trainer.report import read_log


def test_a_run_leaves_checkpoint_log_sheets_and_curves(config: RunConfig, tmp_path: Path) -> None:
    finished = loop.fit(config, tmp_path / "run")

    assert finished
    assert load_checkpoint(tmp_path / "run").steps_done == 8
    assert [entry["step"] for entry in read_log(tmp_path / "run")] == [2, 4, 6, 8]
    sheets = sorted((tmp_path / "run" / "sheets").iterdir())
    assert [sheet.name for sheet in sheets] == ["epoch-001.00.png", "epoch-002.00.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 3 * 40  # photo, translation, return
        assert sheet.height > 8 * 40  # four photos of each domain
    assert (tmp_path / "run" / "losses.png").stat().st_size > 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(config: RunConfig, tmp_path: Path) -> None:
    # Given a run that went through,
    config = replace(
        config,
        losses=LossConfig(history=3),  # full, so that random exchanges count
        schedule=replace(config.schedule, average=0.9),
    )
    loop.fit(config, tmp_path / "whole")
    # when another one is stopped in the middle of an epoch and resumed,
    stop_after(config, tmp_path / "broken", steps=3)
    assert load_checkpoint(tmp_path / "broken").steps_done == 3
    assert loop.resume(tmp_path / "broken")
    # then both hold the same networks, optimisers, histories and random states.
    whole, broken = (load_checkpoint(tmp_path / name) for name in ("whole", "broken"))
    assert_equal(vars(whole), vars(broken))
    assert read_log(tmp_path / "whole")[-1]["fool_a"] == read_log(tmp_path / "broken")[-1]["fool_a"]


def test_sigterm_saves_and_stops_after_the_step(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, handler = loop.steps_left, signal.getsignal(signal.SIGTERM)

    def signalled(run: loop.TrainingRun):  # type: ignore[no-untyped-def]
        for outcome in real(run):
            if run.steps_done == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield outcome

    monkeypatch.setattr(loop, "steps_left", signalled)

    assert not loop.fit(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").steps_done == 3
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_resumed_run_can_be_made_shorter(config: RunConfig, tmp_path: Path) -> None:
    stop_after(config, tmp_path / "run", steps=3)
    shorter = replace(config, schedule=replace(config.schedule, epochs=1.25, decay_epochs=0.5))

    assert loop.resume(tmp_path / "run", shorter)

    assert load_checkpoint(tmp_path / "run").steps_done == 5
    rates = [entry["rate"] for entry in read_log(tmp_path / "run")]
    assert rates[-1] == pytest.approx(rates[0] / 2)


def test_fit_does_not_overwrite_a_run(config: RunConfig, tmp_path: Path) -> None:
    stop_after(config, tmp_path / "run", steps=1)
    with pytest.raises(SetupError, match="resume"):
        loop.fit(config, tmp_path / "run")


def test_a_checkpoint_of_another_architecture_is_an_error(config: RunConfig, tmp_path: Path) -> None:
    stop_after(config, tmp_path / "run", steps=1)
    other = replace(config, networks=NetworkConfig(ndf=8))
    with pytest.raises(SetupError, match=r"key model\.1\.weight has shape"):
        loop.resume(tmp_path / "run", other)


def test_losses_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint(
    config: RunConfig, tmp_path: Path
) -> None:
    stop_after(config, tmp_path / "run", steps=4)
    hopeless = replace(config, schedule=ScheduleConfig(epochs=4, batch=5, rate=1e30))
    with pytest.raises(StopRun, match="lower --rate"):
        loop.resume(tmp_path / "run", hopeless)
    assert load_checkpoint(tmp_path / "run").steps_done == 4


def test_log_entries_of_repeated_steps_are_dropped(config: RunConfig, tmp_path: Path) -> None:
    stop_after(config, tmp_path / "run", steps=3)
    log = tmp_path / "run" / "losses.jsonl"
    log.write_text(log.read_text() + json.dumps({"step": 99, "fool_a": 1.0}) + '\n{"step": 10')

    loop.resume(tmp_path / "run")

    assert [entry["step"] for entry in read_log(tmp_path / "run")] == [2, 3, 4, 6, 8]


def stop_after(config: RunConfig, out: Path, steps: int) -> None:
    """Start a run and stop it by a signal after `steps` steps."""
    with pytest.MonkeyPatch.context() as patch:
        real = loop.steps_left

        def signalled(run: loop.TrainingRun):  # type: ignore[no-untyped-def]
            for outcome in real(run):
                if run.steps_done == steps:
                    os.kill(os.getpid(), signal.SIGINT)
                yield outcome

        patch.setattr(loop, "steps_left", signalled)
        assert not loop.fit(config, out)


def assert_equal(first: object, second: object) -> None:
    """Compare nested dictionaries, lists and tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        assert isinstance(second, list)
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second
