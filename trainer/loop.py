"""A training run from the first step, or from a checkpoint, to the last."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import SetupError
from engine.flow import ahead
from trainer.checkpoints import NAME, load_checkpoint, restore, save_checkpoint, take
from trainer.config import MachineConfig, RunConfig
from trainer.data import Photos, load_photos
from trainer.distributed import Team, team
from trainer.health import Health, check_weights
from trainer.networks import build_networks
from trainer.preview import Preview
from trainer.report import Report, Silence
from trainer.sampling import Sampler
from trainer.signals import StopRequest
from trainer.speed import ceiling_pairs_per_s
from trainer.step import Losses, Step

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A run in memory: what a checkpoint is taken from."""

    config: RunConfig
    out: Path
    step: Step
    photos_a: Photos
    photos_b: Photos
    sampler: Sampler
    facts: dict[str, Any]
    team: Team = field(default_factory=Team)
    steps_done: int = 0
    saved_at_s: float = field(default_factory=time.monotonic)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every photo of the larger domain is seen."""
        return self.sampler.steps_per_epoch

    @property
    def steps(self) -> int:
        """Length of the whole run."""
        return max(1, round(self.config.schedule.epochs * self.steps_per_epoch))

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.steps_done / self.steps_per_epoch

    @property
    def checkpoint_is_due(self) -> bool:
        """The last checkpoint is as old as it may get."""
        return time.monotonic() - self.saved_at_s > self.config.machine.checkpoint_every_s


def fit(config: RunConfig, out: Path) -> bool:
    """Train from the start into the folder `out`; returns False when stopped by a signal before the end.

    Raises `SetupError` when the photos cannot be used or `out` holds a run, `StopRun` when training fails.
    """
    if (out / NAME).exists():
        raise SetupError(f"{out} holds a run already; go on with it by `solstice-train resume {out}`.")
    out.mkdir(parents=True, exist_ok=True)
    with team(choose_device(config.machine)) as members:
        return train(start(config, out, members))


def resume(out: Path, config: RunConfig | None = None) -> bool:
    """Go on with the run in the folder `out`, under `config` where one is given; returns as `fit` does."""
    checkpoint = load_checkpoint(out)
    config = config or checkpoint.config
    with team(choose_device(config.machine)) as members:
        run = start(config, out, members)
        restore(run.step, checkpoint, process=members.process)
        run.steps_done, run.facts = checkpoint.steps_done, run.facts | checkpoint.facts
        return train(run)


def train(run: Run) -> bool:
    """Do the steps that are left; returns False when stopped by a signal before the last one."""
    health, preview = Health(), Preview(run.config)
    with StopRequest() as stop, open_report(run) as report:
        for losses, rate in steps_left(run):
            epoch_ends = run.steps_done in (run.steps, run.steps_per_epoch * round(run.epoch))
            stops = run.team.any(stop.requested)
            if epoch_ends or stops or run.steps_done % run.config.machine.log_every == 0:
                readings = {name: loss.item() for name, loss in losses.items()}
                health.check(readings)
                report.losses(run.steps_done, readings, rate)
                if epoch_ends or stops or run.team.any(run.checkpoint_is_due):
                    save(run)
            if epoch_ends and run.team.leads:
                report.sheet(run.steps_done, preview.rows(*run.step.exported()))
            if stops:
                break
        report.curves()
    return run.steps_done >= run.steps


def steps_left(run: Run) -> Iterator[tuple[Losses, float]]:
    """Do one step after another; yields the losses of each and the learning rate it had."""
    with closing(ahead(crops_left(run), depth=2, name="crops")) as crops:
        for a, b in crops:
            rate = run.config.schedule.rate_at(run.epoch, run.sampler.pairs_per_step)
            losses = run.step(a, b, rate)
            run.steps_done += 1
            yield losses, rate


def crops_left(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut the crops of A and of B for one step after another, up to the last."""
    for step in range(run.steps_done, run.steps):
        cuts_a, cuts_b = run.sampler.cuts(step)
        yield run.photos_a.crops(cuts_a), run.photos_b.crops(cuts_b)


def start(config: RunConfig, out: Path, members: Team) -> Run:
    """Read the photos and build the networks; nothing is trained yet."""
    device = choose_device(config.machine)
    photos_a = load_photos(config.data.train_a, config.data, device)
    photos_b = load_photos(config.data.train_b, config.data, device)
    logger.warning("Training on %d photos of A and %d of B, %s.", len(photos_a), len(photos_b), device)
    schedule = config.schedule
    sampler = Sampler(
        photos_a=len(photos_a),
        photos_b=len(photos_b),
        batch=schedule.batch,
        flip=config.data.flip,
        seed=schedule.seed,
        process=members.process,
        processes=members.processes,
    )
    return Run(
        config=config,
        out=out,
        step=Step(
            build_networks(config.networks, schedule.seed),
            config.losses,
            schedule,
            runnable(config.machine),
            device,
            members,
        ),
        photos_a=photos_a,
        photos_b=photos_b,
        sampler=sampler,
        facts={
            "photos_a": len(photos_a),
            "photos_b": len(photos_b),
            "pairs_per_step": sampler.pairs_per_step,
            "steps_per_epoch": sampler.steps_per_epoch,
            "torch": str(torch.__version__),
            "machine": describe_machine(device, members.processes),
        },
        team=members,
    )


def save(run: Run) -> None:
    """Write a checkpoint of `run`; raises `StopRun` when its weights are ruined or the disk is full."""
    check_weights(run.step.networks)
    histories = run.team.gather(run.step.history_state())
    if run.team.leads:
        save_checkpoint(run.out, take(run.step, run.config, run.steps_done, run.facts, histories))
    run.saved_at_s = time.monotonic()


def open_report(run: Run) -> Report | Silence:
    """Make the report that `run` writes to; only the leading process tells anything."""
    if not run.team.leads:
        return Silence()
    return Report(
        run.out,
        steps_done=run.steps_done,
        steps=run.steps,
        steps_per_epoch=run.steps_per_epoch,
        pairs_per_step=run.sampler.pairs_per_step,
        ceiling_pairs_per_s=ceiling_pairs_per_s(run.config, run.step.device) * run.team.processes,
    )


def choose_device(machine: MachineConfig) -> torch.device:
    """Resolve `auto`; raises `SetupError` where a GPU is asked for and there is none."""
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("--device cuda: PyTorch finds no GPU here; use --device cpu.")
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(machine.device)


def runnable(machine: MachineConfig) -> MachineConfig:
    """Turn compilation off, and say so, where there is no compiler for it."""
    if machine.compile and shutil.which("g++") is None and shutil.which("clang++") is None:
        logger.warning("No C++ compiler found: training without torch.compile, several times slower.")
        return replace(machine, compile=False)
    return machine


def describe_machine(device: torch.device, processes: int) -> str:
    """Name the class of machine for the model card."""
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} CPU cores ({platform.machine()})"
