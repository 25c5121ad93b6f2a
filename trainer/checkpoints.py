"""Checkpoints: everything that a run needs to continue as if it had not been stopped."""

from __future__ import annotations

import errno
import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine.errors import SetupError, StopRun
from engine.model.weights import first_mismatch
from engine.system.checksums import damaged_record
from engine.system.files import write_atomically
from trainer.config import RunConfig
from trainer.step import Step

FORMAT = 1
NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file."""

    config: RunConfig
    steps_done: int
    facts: dict[str, Any]
    """Machine, versions and numbers of photos, for the cards of exported models."""
    networks: dict[str, Any]
    optimisers: dict[str, Any]
    histories: list[dict[str, Any]]
    """One entry per process of a data-parallel run."""
    averages: dict[str, Any] = field(default_factory=dict)
    """The averaged generators, if an average is kept."""


def take(
    step: Step, config: RunConfig, steps_done: int, facts: dict[str, Any], histories: list[dict[str, Any]]
) -> Checkpoint:
    """Return the state of `step` after `steps_done` steps."""
    return Checkpoint(
        config=config,
        steps_done=steps_done,
        facts=facts,
        networks={name: network.state_dict() for name, network in step.networks.named()},
        optimisers={
            "generators": step.optimise_generators.state_dict(),
            "discriminators": step.optimise_discriminators.state_dict(),
        },
        histories=histories,
        averages={} if step.average is None else step.average.state_dict(),
    )


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to the folder `run`, atomically in place of the last one.

    Raises `StopRun` if the disk is full; the last checkpoint, if there is one, is kept.
    """
    buffer = io.BytesIO()
    fields = {**vars(checkpoint), "config": checkpoint.config.to_json(), "format": FORMAT}
    torch.save(fields, buffer)
    try:
        write_atomically(run / NAME, buffer.getvalue())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = (
            f"the last checkpoint is kept: free space, then run `solstice-train resume {run}`"
            if (run / NAME).exists()
            else "there is none yet: free space, then start again"
        )
        raise StopRun(
            f"No space left for a checkpoint of {len(buffer.getvalue()) >> 20} MiB in {run}; {advice}."
        ) from error


def load_checkpoint(run: Path) -> Checkpoint:
    """Read the checkpoint of the folder `run`; raises `SetupError` if there is none or it cannot be read."""
    path = run / NAME
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SetupError(f"There is no {path}; start a run with `solstice-train fit`.") from error
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] if isinstance(error, OSError | RuntimeError) else type(error).__name__
        raise SetupError(f"{path} is not a readable checkpoint ({reason}).") from error
    record = damaged_record(path)
    if record is not None:
        raise SetupError(f"{path} is damaged: the checksum of its {record} is wrong.")
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise SetupError(f"{path} is not a checkpoint of this version of Solstice.")
    return Checkpoint(**{**fields, "config": RunConfig.from_json(fields["config"])})


def restore(step: Step, checkpoint: Checkpoint, process: int) -> None:
    """Load `checkpoint` into `step`; raises `SetupError` if the architectures differ."""
    for name, network in step.networks.named():
        mismatch = first_mismatch(network, {key: value.shape for key, value in checkpoint.networks[name].items()})
        if mismatch is not None:
            raise SetupError(f"The checkpoint does not fit network {name}: {mismatch}.")
        network.load_state_dict(checkpoint.networks[name])
    if step.average is not None:
        step.average.load_state_dict(checkpoint.averages)
    step.optimise_generators.load_state_dict(checkpoint.optimisers["generators"])
    step.optimise_discriminators.load_state_dict(checkpoint.optimisers["discriminators"])
    step.load_history_state(checkpoint.histories[process % len(checkpoint.histories)])
