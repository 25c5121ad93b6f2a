"""One archive on two devices: real processes, which differ from those on GPUs only in where they compute."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from engine.archive.config import ArchiveConfig
from engine.archive.convert import convert
from engine.archive.parallel import ChildProcess, convert_on, handle_message, parse_devices
from engine.archive.parallel_child import MeasurementBuffer, _slow_images_sent
from engine.archive.parallel_messages import ChildMessage, LogMessage, OldestUnderWay, ProcessCrashed
from engine.archive.run import RunProgress, RunRequest, started_run
from engine.config import GenerateConfig, PipelineConfig
from engine.errors import SetupError, StopRun
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import load_generator, save_generator
from engine.observe.metrics import Tally
from engine.observe.prometheus import PrometheusMetrics
from engine.options import Options, Size
from engine.records import Outcome
from tests import ROOT
from tests.engine.archive.test_convert import counts, files
from tests.engine.cli.test_main import command, states
from tests.images import make_archive

CONFIG = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)
TWO = ("cpu", "cpu")


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that takes long enough for a process to be killed in the middle."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "slow.safetensors"
    save_generator(path, ResnetGenerator(Architecture(blocks=4, ngf=24)), Card(name="slow"))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 40 photos in two folders, one of them damaged."""
    return make_archive(tmp_path_factory.mktemp("archive"), 40)


@pytest.fixture(scope="module")
def on_one(archive: Path, slow_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a run on one device."""
    dst = tmp_path_factory.mktemp("one")
    assert counts(convert(archive, dst, slow_model, CONFIG)) == (39, 0, 1)
    return files(dst)


def test_two_devices_write_the_files_of_one_and_their_numbers_add_up(
    archive: Path, slow_model: Path, on_one: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[Outcome | None] = []
    metrics = Tally()
    summary = convert_on(
        TWO, archive, tmp_path, slow_model, CONFIG,
        report="all", progress=lambda outcome, _: seen.append(outcome), metrics=metrics,
    )  # fmt: skip
    assert counts(summary) == (39, 0, 1)
    assert summary.failures[0]["path"] == "0/20.jpg"
    assert summary.backend == "2 processes: eager fp32 on cpu: as requested"
    assert {name: stage["images"] for name, stage in summary.stages.items()} == {
        "read": 40,
        "inspect": 40,
        "decode": 40,
        "generate": 39,
        "encode": 40,
        "store": 40,
    }
    assert (metrics.converted, metrics.failed) == (39, 1)
    assert len({outcome.key for outcome in seen if outcome is not None}) == 40
    made = files(tmp_path)
    page = made.pop("report.html").decode()
    assert all(f"{name}" in page for name in on_one)
    assert made == on_one
    assert states(tmp_path) == {"done": 39, "failed": 1}

    assert counts(convert(archive, tmp_path, slow_model, CONFIG)) == (0, 39, 1), "what is done is done"


def test_a_killed_process_ends_the_run_and_the_next_run_continues(
    archive: Path, slow_model: Path, on_one: dict[str, bytes], tmp_path: Path
) -> None:
    heard: list[str] = []

    def kill_one(outcome: Outcome | None, _: RunProgress) -> None:
        if outcome is not None:
            heard.append(outcome.key)
            if len(heard) == 1:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    with pytest.raises(StopRun, match=r"^The process for cpu was killed by signal 9; .* again to go on\.$"):
        convert_on(TWO, archive, tmp_path, slow_model, CONFIG, progress=kill_one)
    assert multiprocessing.active_children() == []
    recorded = states(tmp_path)
    assert sum(recorded.values()) == len(heard)
    assert 1 <= len(heard) < 40
    assert files(tmp_path).items() <= on_one.items()
    assert not (tmp_path / ".solstice/partial").exists()

    skips: list[int] = []
    rest = convert_on(
        TWO, archive, tmp_path, slow_model, CONFIG, progress=lambda _, progress: skips.append(progress.num_skipped)
    )
    assert set(skips) == {rest.skipped}, "known before the first photo is read"
    assert (rest.skipped, rest.converted + rest.skipped) == (recorded.get("done", 0), 39)
    assert files(tmp_path) == on_one


def test_what_stops_one_process_stops_the_run(
    archive: Path, slow_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The parent logs the child's messages with its name."""
    impossible = replace(CONFIG, generate=replace(CONFIG.generate, backend="tensorrt"))
    with pytest.raises(SetupError, match="Backend tensorrt needs an NVIDIA GPU"):
        convert_on(TWO, archive, tmp_path, slow_model, impossible)
    assert multiprocessing.active_children() == []
    request = RunRequest(
        src=archive,
        dst=tmp_path / "other",
        generator=load_generator(slow_model),
        config=CONFIG,
        archive=ArchiveConfig(),
    )
    with started_run(request) as run:
        run.start()
        child = ChildProcess("cuda:1", multiprocessing.Process(), Connection(os.open(os.devnull, os.O_RDONLY)))
        assert list(handle_message(LogMessage(logging.WARNING, "half as many images now"), child, run)) == []
        with pytest.raises(RuntimeError, match="the process for cuda:1 failed:\nTraceback"):
            list(handle_message(ProcessCrashed("Traceback …"), child, run))
    assert caplog.messages == ["cuda:1: half as many images now"]


def test_measurements_of_a_child_reach_the_metrics_of_the_parent() -> None:
    sent, received = MeasurementBuffer(), PrometheusMetrics()
    sent.stage("decode", 0.5, 3)
    sent.count("duplicates_total", 2.0)
    sent.count("retries_total", 4.0, "read")
    sent.observe("batch_images", 7.0)
    for measurement in pickle.loads(pickle.dumps(sent.take())):
        measurement.apply(received)
    assert sent.take() == []
    lines = received.exposition().decode().splitlines()
    assert {
        'solstice_stage_images_total{stage="decode"} 3.0',
        "solstice_duplicates_total 2.0",
        'solstice_retries_total{stage="read"} 4.0',
        "solstice_batch_images_sum 7.0",
    } <= set(lines)


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def alive(pids: list[int]) -> list[int]:
    def lives(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        return False

    return [pid for pid in pids if lives(pid)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_no_process(
    number: signal.Signals, code: int, archive: Path, slow_model: Path, tmp_path: Path
) -> None:
    """Ctrl-C goes to the whole group, as a terminal sends it."""
    arguments = ("convert", archive, tmp_path, "--model", slow_model, "--size", "native", "--backend", "eager")
    process = subprocess.Popen(
        command(*arguments, "--devices", "cpu,cpu"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until_s = time.monotonic() + 150
    while len(list(tmp_path.glob("?/*.jpg"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until_s, "no results"
        time.sleep(0.01)
    children = children_of(process.pid)
    assert len(children) >= 2
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    if code == 130:
        assert (stdout, stderr.strip()) == ("", "Interrupted; run the same command again to continue.")
        assert not (tmp_path / ".solstice/partial").exists()
    until_s = time.monotonic() + 10
    while alive(children) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert alive(children) == []
    stored = len(files(tmp_path))
    assert 3 <= stored < 39
    assert states(tmp_path).get("done", 0) <= stored


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("cpu,tpu", "must be auto, cpu"), ("cpu,,cpu", "must be auto, cpu"), ("mps", "not supported"), ("", "must be")],
)
def test_unknown_devices_are_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint):
        parse_devices(text)


def test_all_devices_are_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.archive.parallel.cuda_obstacle", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert parse_devices("all") == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setattr("engine.archive.parallel.choose_device", torch.device)
    assert parse_devices("cuda:0, cuda:2") == ("cuda:0", "cuda:2")
    with pytest.raises(SetupError, match="cuda:1 twice"):
        parse_devices("cuda:1,cuda:1")


def test_all_devices_without_a_gpu_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.archive.parallel.cuda_obstacle", lambda: "no NVIDIA driver was found")
    with pytest.raises(SetupError, match=r"^--devices all: no NVIDIA driver was found, or use --device cpu\.$"):
        parse_devices("all")


class SentMessages:
    def __init__(self) -> None:
        self.sent: list[ChildMessage] = []
        self.arrived = threading.Condition()

    def send(self, message: ChildMessage) -> None:
        with self.arrived:
            self.sent.append(message)
            self.arrived.notify()


def test_a_process_sends_which_image_takes_long_and_when_it_is_over() -> None:
    oldest: list[tuple[str, float] | None] = [("a.jpg", 90.0)]
    parent = SentMessages()
    with _slow_images_sent(lambda: oldest[0], parent, every_s=0.001), parent.arrived:
        assert parent.arrived.wait_for(lambda: OldestUnderWay("a.jpg", 90.0) in parent.sent, 30)
        oldest[0] = None
        assert parent.arrived.wait_for(lambda: OldestUnderWay(None, 0.0) in parent.sent, 30)
        num_sent = len(parent.sent)
    assert parent.sent[num_sent - 1 :] == [OldestUnderWay(None, 0.0)], "nothing more to report"


def test_the_slowest_image_of_all_processes_is_shown(archive: Path, slow_model: Path, tmp_path: Path) -> None:
    seen: list[RunProgress] = []
    request = RunRequest(
        src=archive,
        dst=tmp_path / "out",
        generator=load_generator(slow_model),
        config=PipelineConfig(),
        archive=ArchiveConfig(),
        progress=lambda _, progress: seen.append(progress),
    )
    one, other = (ChildProcess("cpu", multiprocessing.Process(), multiprocessing.Pipe()[0]) for _ in range(2))
    with started_run(request) as run:
        assert seen[0].oldest_under_way() is None
        for child, message in ((one, OldestUnderWay("a.jpg", 7.0)), (other, OldestUnderWay("b.jpg", 60.0))):
            assert not list(handle_message(message, child, run))
        oldest = seen[0].oldest_under_way()
        assert oldest is not None
        assert oldest[0] == "b.jpg"
        assert oldest[1] >= 60
        assert not list(handle_message(OldestUnderWay(None, 0.0), other, run))
        assert (seen[0].oldest_under_way() or ("",))[0] == "a.jpg"
