from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests import ROOT
from trainer import loop
from trainer.checkpoints import Checkpoint, load_checkpoint
from trainer.config import RunConfig
from trainer.distributed import Team
from trainer.report import read_log

WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import torch

from trainer import loop
from trainer.config import RunConfig
loop.fit(RunConfig.from_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
"""


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(config: RunConfig, tmp_path: Path) -> None:
    # Given one process with a step of four pairs, and two with two pairs each; without history, which each keeps alone,
    config = replace(config, losses=replace(config.losses, history=0))
    alone = replace(config, schedule=replace(config.schedule, batch=4, epochs=0.2))
    shared = replace(config, schedule=replace(config.schedule, batch=2, epochs=0.2))
    # when both have taken it,
    loop.fit(alone, tmp_path / "alone")
    torchrun(shared, tmp_path, processes=2)
    # then their gradients, of which Adam keeps the mean, are equal but for rounding, and one process told of it.
    first, second = load_checkpoint(tmp_path / "alone"), load_checkpoint(tmp_path / "shared")
    assert first.steps_done == second.steps_done == 1
    assert len(second.histories) == 2
    for optimiser in ("generators", "discriminators"):
        one, two = (mean_gradients(checkpoint, optimiser) for checkpoint in (first, second))
        assert (one - two).norm() < 1e-3 * one.norm()
    assert [entry["step"] for entry in read_log(tmp_path / "shared")] == [1]


def test_a_single_process_does_not_communicate() -> None:
    alone = Team()
    assert alone.leads
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.gather("state") == ["state"]


def torchrun(config: RunConfig, folder: Path, processes: int) -> None:
    """Train into `folder`/shared as `torchrun` starts a run: one process per rank."""
    (folder / "config.json").write_text(config.to_json())
    (folder / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(folder / "worker.py")]
    command += [str(folder / "config.json"), str(folder / "shared")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def mean_gradients(checkpoint: Checkpoint, optimiser: str) -> torch.Tensor:
    """Return the running mean of every gradient in Adam as one vector."""
    state = checkpoint.optimisers[optimiser]["state"]
    return torch.cat([state[place]["exp_avg"].flatten() for place in sorted(state)])
