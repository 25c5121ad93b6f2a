"""Two synthetic domains that are learned quickly: gradients in warm and in cold colours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.model.card import Architecture
from tests.once import built_once
from trainer import loop
from trainer.config import DataConfig, MachineConfig, NetworkConfig, RunConfig, ScheduleConfig

WARM = ((255, 120, 30), (140, 30, 20))
COLD = ((40, 130, 255), (20, 40, 130))


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with trainA, testA (warm) and trainB, testB (cold)."""
    data = tmp_path_factory.mktemp("domains")
    for number, (folder, colours, count) in enumerate(
        [("trainA", WARM, 20), ("trainB", COLD, 16), ("testA", WARM, 6), ("testB", COLD, 6)]
    ):
        write_gradients(data / folder, colours, count, seed=number)
    return data


def write_gradients(folder: Path, colours: tuple[tuple[int, ...], ...], count: int, seed: int) -> None:
    """Write `count` PNGs of 48x64 pixels: a gradient between two colours in a random direction, with some grain."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    light, dark = (np.array(colour, float) for colour in colours)
    y, x = np.mgrid[-1:1:48j, -1:1:64j]
    for place in range(count):
        angle = random.uniform(0, 2 * np.pi)
        share = (x * np.cos(angle) + y * np.sin(angle) + 1.5)[..., None] / 3
        pixels = share * light + (1 - share) * dark + random.normal(0, 6, (48, 64, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{place:02}.png")


@pytest.fixture
def config(domains: Path) -> RunConfig:
    """Return the configuration of a run of a few seconds."""
    return tiny_run(domains)


def tiny_run(domains: Path) -> RunConfig:
    """Return a run with the smallest networks, exact arithmetic and four steps per epoch."""
    return RunConfig(
        data=DataConfig(
            train_a=domains / "trainA",
            train_b=domains / "trainB",
            held_out=(domains / "testA", domains / "testB"),
            load=40,
            crop=32,
        ),
        networks=NetworkConfig(architecture=Architecture(blocks=1, ngf=4, upsample="resize"), ndf=4),
        schedule=ScheduleConfig(epochs=2, batch=5),
        machine=MachineConfig(device="cpu", precision="fp32", compile=False, log_every=2),
    )


@pytest.fixture(scope="session")
def finished_run(domains: Path, run_folder: Path) -> Path:
    """Return the folder of a finished run, which all test processes share; tests that need one take a copy, `run`."""
    return built_once(run_folder / "finished-run", lambda folder: loop.fit(tiny_run(domains), folder))


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: networks this small do not gain from more, and lose on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
