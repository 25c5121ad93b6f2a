"""`convert --on ray` on a real cluster of two actors, which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from engine.archive import run as archive_run
from engine.archive.config import ArchiveConfig
from engine.archive.convert import convert
from engine.archive.distributed import run as distributed_run
from engine.archive.distributed import shares
from engine.archive.distributed.cluster import Cluster, check_address
from engine.archive.distributed.run import Placement, convert_on_ray
from engine.archive.run import RunProgress, RunRequest
from engine.config import GenerateConfig, PipelineConfig
from engine.errors import SetupError, StopRun
from engine.listing import Inventory
from engine.listing.inputs import FileInput
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import load_generator, save_generator
from engine.options import Options, Size
from engine.records import Outcome
from tests import ROOT
from tests.engine.archive.test_convert import counts, files
from tests.engine.archive.test_parallel import children_of
from tests.engine.cli.test_main import command, states
from tests.images import make_archive

pytestmark = pytest.mark.needs_ray

CONFIG = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that takes long enough for a worker to be killed in the middle."""
    path = tmp_path_factory.mktemp("model") / "slow.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_generator(path, ResnetGenerator(Architecture(blocks=2, ngf=16)), Card(name="slow"))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 60 photos in two folders, one of them damaged."""
    return make_archive(tmp_path_factory.mktemp("archive"), 60)


def actors(pid: int) -> list[int]:
    """Return the processes below `pid` that are actors of a run."""
    found: list[int] = []
    for child in children_of(pid):
        if b"ray::ArchiveWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(child)
        found += actors(child)
    return found


def test_a_run_whose_worker_is_killed_writes_the_tree_of_a_local_run(
    archive: Path, model: Path, tmp_path: Path, ray_address: str
) -> None:
    killed: list[int] = []
    seen: list[str] = []

    def kill_one(outcome: Outcome | None, _: RunProgress) -> None:
        if outcome is None:
            return
        seen.append(outcome.key)
        if not killed and len(seen) >= 5:
            killed.append(actors(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    summary = convert_on_ray(
        archive, tmp_path / "ray", model, CONFIG, address=ray_address, actors=2, report="all", progress=kill_one
    )
    assert len(killed) == 1
    assert counts(summary) == (59, 0, 1)
    assert [failure["path"] for failure in summary.failures] == ["0/20.jpg"]
    assert summary.backend == "2 actors on Ray: eager fp32 on cpu: as requested"
    assert len(seen) == len(set(seen)) == 60, "each input is reported once"
    convert(archive, tmp_path / "local", model, CONFIG)
    made = files(tmp_path / "ray")
    page = made.pop("report.html").decode()
    assert made == files(tmp_path / "local")
    assert all(name in page for name in made)
    assert states(tmp_path / "ray") == states(tmp_path / "local") == {"done": 59, "failed": 1}
    assert sorted(path.name for path in (tmp_path / "ray/.solstice").iterdir() if path.suffix != ".sqlite") == ["lock"]


def test_the_command_continues_a_run_and_ends_with_its_exit_codes(
    archive: Path, model: Path, tmp_path: Path, ray_address: str
) -> None:
    """By a process of its own that connects to the running cluster."""
    convert(archive, tmp_path, model, CONFIG)
    for name in ("0/00.jpg", "1/01.jpg"):
        (tmp_path / name).unlink()
    arguments = ("convert", archive, tmp_path, "--model", model, "--size", "native", "--backend", "eager")
    done = subprocess.run(
        command(*arguments, "--on", "ray", "--address", ray_address, "--ray-actors", "1"),
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("2 converted, 57 already done, 1 failed")
    assert "(1 actors on Ray: eager fp32 on cpu: as requested)" in first
    assert second.startswith("  0/20.jpg: damaged")
    assert states(tmp_path) == {"done": 59, "failed": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlyInput(FileInput):
    """An input that kills the process that reads it, as one does that takes all memory."""

    def read(self) -> bytes:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_an_input_that_kills_its_workers_fails_alone(
    archive: Path, model: Path, tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_source(*_: object) -> Inventory:
        photos = [f"{i % 2}/{i:02}.jpg" for i in range(4)]
        kinds = {2: DeadlyInput}
        return Inventory(
            [
                kinds.get(i, FileInput)(key=key, identity="1", num_bytes=1, location=str(archive / key))
                for i, key in enumerate(photos)
            ]
        )

    monkeypatch.setattr(archive_run, "open_source", open_source)
    monkeypatch.setattr(shares, "MAX_DEATHS", 2)  # one start of an actor less
    summary = convert_on_ray(archive, tmp_path, model, CONFIG, address=ray_address, actors=1)
    assert counts(summary) == (3, 0, 1)
    [failure] = summary.failures
    assert failure["path"] == "0/02.jpg"
    assert "the worker was killed" in failure["error"]


def test_a_connection_to_another_cluster_is_not_used_silently(ray_address: str) -> None:
    assert check_address(None) == check_address("auto") == check_address(ray_address) == ray_address
    with pytest.raises(
        SetupError, match=r"^This process is connected to the Ray cluster at .*, not to a:1; call ray\.shutdown first"
    ):
        check_address("a:1")


def test_workers_that_die_without_end_stop_the_run_with_one_sentence(
    archive: Path, model: Path, tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed_run, "MAX_DEATHS_IN_A_ROW", 1)
    monkeypatch.setattr(archive_run, "open_source", lambda *_: Inventory(
        [DeadlyInput(key=f"{i}.jpg", identity="1", num_bytes=1, location="") for i in range(3)]
    ))  # fmt: skip
    with pytest.raises(
        StopRun, match=r"^1 Ray actors ended in a row before .* because: .*; run the same command again"
    ):
        convert_on_ray(archive, tmp_path, model, CONFIG, address=ray_address, actors=1)
    assert not any((tmp_path / ".solstice").glob("ray-*"))


def request_for(device: str, src: Path, model: Path) -> RunRequest:
    return RunRequest(
        src=src,
        dst="dst",
        generator=load_generator(model),
        config=PipelineConfig(generate=GenerateConfig(device=device)),
        archive=ArchiveConfig(),
    )


def test_actors_divide_the_cluster(archive: Path, model: Path) -> None:
    def placed(actors: int | None, device: str = "auto", *, gpus: int = 0) -> Placement:
        cluster = Cluster(address="a:1", num_nodes=4, num_cpus=32, num_gpus=gpus, cpus_of_smallest_node=8)
        return distributed_run._placement(cluster, actors, request_for(device, archive, model))

    assert placed(None) == Placement(actors=4, cores=8, gpus=0, actors_per_node=1)
    assert placed(6) == Placement(actors=6, cores=4, gpus=0, actors_per_node=2)
    assert placed(None, gpus=16) == Placement(actors=16, cores=2, gpus=1, actors_per_node=4)
    assert placed(None, "cpu", gpus=16).gpus == 0
    with pytest.raises(SetupError, match=r"has no GPU; use --device cpu"):
        placed(None, "cuda")
    with pytest.raises(SetupError, match=r"--ray-actors 17: the Ray cluster has 16 GPUs"):
        placed(17, gpus=16)
    with pytest.raises(SetupError, match=r"--ray-actors 33: the Ray cluster has 32 cores"):
        placed(33)
