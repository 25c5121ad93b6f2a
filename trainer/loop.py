"""A training run, from the first step or from a checkpoint to the last step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import SetupError
from engine.flow import ahead
from engine.system.compiler import find_compiler
from trainer.calibration import CALIBRATION_CROPS, needs_statistics, store_statistics
from trainer.checkpoints import NAME, Checkpoint, load_checkpoint, restore, save_checkpoint, take
from trainer.compiler import describe_compiler, describe_processor
from trainer.config import MachineConfig, RunConfig
from trainer.data import Photos, load_photos
from trainer.distributed import Team, team
from trainer.exported import describe_exported, load_exported
from trainer.fallback import ensure_right_gradients
from trainer.health import LossMonitor, check_weights
from trainer.networks import Networks, build_networks
from trainer.preview import EpochSheet
from trainer.report import NullReport, TrainingReport
from trainer.sampling import Sampler
from trainer.signals import StopRequest
from trainer.speed import ceiling_pairs_per_s
from trainer.step import Losses, Step

logger = logging.getLogger(__name__)

NetworkMaker = Callable[[RunConfig, Photos, Photos, Sampler], Networks]
"""Makes the networks that a run starts with; photos and sampler serve to measure statistics."""


@dataclass
class TrainingRun:
    """State of a run in memory."""

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
        """Steps that show every photo of the larger domain once."""
        return self.sampler.steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return max(1, round(self.config.schedule.epochs * self.steps_per_epoch))

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.steps_done / self.steps_per_epoch

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is older than the configured interval."""
        return time.monotonic() - self.saved_at_s > self.config.machine.checkpoint_every_s


def fit(config: RunConfig, out: Path) -> bool:
    """Train from the start into the folder `out`; returns False if a signal stopped the run before its end.

    Raises `SetupError` if the photos cannot be used or `out` holds a run, `StopRun` if training fails.
    """
    if (out / NAME).exists():
        raise SetupError(f"{out} already holds a run; `solstice-train resume {out}` continues it.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f'Cannot write to "{out}": {error.strerror}.') from error
    with team(choose_device(config.machine)) as members:
        run = start(config, out, members, first_networks)
        run.facts["started_from"] = describe_exported(config.start_from)
        check_execution(run)
        return train(run)


def resume(out: Path, config: RunConfig | None = None) -> bool:
    """Continue the run in the folder `out`, with `config` in place of its own if given; returns as `fit` does."""
    checkpoint = load_checkpoint(out)
    config = config or checkpoint.config
    with team(choose_device(config.machine)) as members:
        run = start(config, out, members, lambda run_config, *_: build_networks(run_config.networks, seed=0))
        restore(run.step, checkpoint, process=members.process)
        run.steps_done = checkpoint.steps_done
        check_execution(run)
        run.facts = checkpoint.facts | run.facts | {"stages": stages(checkpoint, run)}
        return train(run)


def train(run: TrainingRun) -> bool:
    """Run the remaining steps; returns False if a signal stopped the run before the last one."""
    monitor, sheet, first_step = LossMonitor(run.out), EpochSheet(run.config), run.steps_done + 1
    with StopRequest() as stop, open_report(run) as report:
        for losses, rate in steps_left(run):
            if run.steps_done == first_step:
                monitor.check(readings_of(losses))
            epoch_ends = run.steps_done in (run.steps, run.steps_per_epoch * round(run.epoch))
            stops = run.team.any(stop.requested)
            if epoch_ends or stops or run.steps_done % run.config.machine.log_every == 0:
                readings = readings_of(losses)
                monitor.check(readings)
                report.losses(run.steps_done, readings, rate)
                if epoch_ends or stops or run.team.any(run.checkpoint_is_due):
                    save(run)
            if epoch_ends and run.team.leads:
                report.sheet(run.steps_done, sheet.rows(*run.step.exported()))
            if stops:
                break
        report.curves()
    return run.steps_done >= run.steps


def steps_left(run: TrainingRun) -> Iterator[tuple[Losses, float]]:
    """Run the remaining steps; yields the losses and the learning rate of each."""
    with closing(ahead(crops_left(run), depth=2, name="crops")) as crops:
        for a, b in crops:
            rate = run.config.schedule.rate_at(run.epoch, run.sampler.pairs_per_step)
            losses = run.step(a, b, rate)
            run.steps_done += 1
            yield losses, rate


def crops_left(run: TrainingRun) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the crops of A and of B for every remaining step."""
    for step in range(run.steps_done, run.steps):
        yield crops_of_step(run, step)


def crops_of_step(run: TrainingRun, step: int) -> tuple[Tensor, Tensor]:
    """Return the crops of A and of B for step number `step`, counted from 0; each [N, 3, crop, crop]."""
    cuts_a, cuts_b = run.sampler.cuts(step)
    return run.photos_a.crops(cuts_a), run.photos_b.crops(cuts_b)


def readings_of(losses: Losses) -> dict[str, float]:
    """Return the losses as numbers; waits for the device."""
    return {name: loss.item() for name, loss in losses.items()}


def start(config: RunConfig, out: Path, members: Team, make_networks: NetworkMaker) -> TrainingRun:
    """Read the photos and make the networks, without training."""
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
    networks = make_networks(config, photos_a, photos_b, sampler)
    return TrainingRun(
        config=config,
        out=out,
        step=Step(networks, config.losses, schedule, runnable(config.machine, device), device, members),
        photos_a=photos_a,
        photos_b=photos_b,
        sampler=sampler,
        facts={
            "photos_a": len(photos_a),
            "photos_b": len(photos_b),
            "pairs_per_step": sampler.pairs_per_step,
            "steps_per_epoch": sampler.steps_per_epoch,
            "torch": str(torch.__version__),
            "started_from": [],
            "stages": [],
        },
        team=members,
    )


def first_networks(config: RunConfig, photos_a: Photos, photos_b: Photos, sampler: Sampler) -> Networks:
    """Make the networks of a new run: random or exported weights, and statistics where they are to be stored."""
    networks = build_networks(config.networks, config.schedule.seed)
    load_exported(networks, config.start_from)
    crops = [sampler.cuts(step) for step in range(-(-CALIBRATION_CROPS // config.schedule.batch))]
    for generator, photos, cuts in (
        (networks.a_to_b, photos_a, [cuts_a for cuts_a, _ in crops]),
        (networks.b_to_a, photos_b, [cuts_b for _, cuts_b in crops]),
    ):
        if needs_statistics(generator):
            store_statistics(generator, (photos.crops(cut).cpu() for cut in cuts))
    return networks


def check_execution(run: TrainingRun) -> None:
    """Compare the gradients of the next step with the reference, and note how the networks run for the card."""
    if run.steps_done < run.steps:
        ensure_right_gradients(run.step, *crops_of_step(run, run.steps_done))
    run.facts |= describe_execution(run)


def save(run: TrainingRun) -> None:
    """Write a checkpoint of `run`; raises `StopRun` if its weights are not finite or the disk is full."""
    check_weights(run.step.networks, run.out)
    histories = run.team.gather(run.step.history_state())
    if run.team.leads:
        save_checkpoint(run.out, take(run.step, run.config, run.steps_done, run.facts, histories))
    run.saved_at_s = time.monotonic()


def open_report(run: TrainingRun) -> TrainingReport | NullReport:
    """Return the report of `run`; only the leading process writes one."""
    if not run.team.leads:
        return NullReport()
    return TrainingReport(
        run.out,
        steps_done=run.steps_done,
        steps=run.steps,
        steps_per_epoch=run.steps_per_epoch,
        pairs_per_step=run.sampler.pairs_per_step,
        measure_ceiling=lambda: ceiling_pairs_per_s(run.config, run.step.device) * run.team.processes,
    )


def choose_device(machine: MachineConfig) -> torch.device:
    """Return the device to train on; raises `SetupError` if a GPU is required and there is none."""
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("--device cuda: PyTorch finds no GPU; use --device cpu.")
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(machine.device)


def runnable(machine: MachineConfig, device: torch.device) -> MachineConfig:
    """Return `machine` without compilation, and log that, if the device is a CPU without a C++ compiler."""
    if machine.compile and device.type == "cpu" and find_compiler() is None:
        logger.warning("No C++ compiler found: training without torch.compile, several times slower; install g++.")
        return replace(machine, compile=False)
    return machine


def describe_execution(run: TrainingRun) -> dict[str, Any]:
    """Return what the model card records about how the networks ran."""
    device, compiled = run.step.device, run.step.compiled
    return {
        "compiled": compiled,
        "compiler": describe_compiler(device) if compiled else "none",
        "processor": describe_processor(device),
        "devices": run.team.processes if device.type == "cuda" else 0,
        "threads": torch.get_num_threads() * run.team.processes,
        "channels_last": run.step.memory_format == torch.channels_last,
    }


def stages(checkpoint: Checkpoint, run: TrainingRun) -> list[dict[str, Any]]:
    """Return the settings of each earlier part of `run` for the card; a part ends where a resumed run changes them."""
    earlier: list[dict[str, Any]] = checkpoint.facts.get("stages", [])
    ended = describe_stage(checkpoint.config, checkpoint.facts)
    if ended == describe_stage(run.config, run.facts):
        return earlier
    return [*earlier, {"up_to_step": checkpoint.steps_done, **ended}]


def describe_stage(config: RunConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a resumed run may change."""
    return {
        "load": config.data.load,
        "rate": config.schedule.rate,
        "losses": asdict(config.losses),
        "precision": config.machine.precision,
        **{name: facts.get(name) for name in ("compiled", "compiler", "processor", "torch")},
    }
