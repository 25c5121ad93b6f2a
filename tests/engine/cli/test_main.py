"""The real command in its own process: output, exit codes, and the state after it was stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from engine.archive.convert import convert
from engine.archive.manifest import FOLDER
from engine.cli.main import COMMANDS
from engine.cli.main import solstice as solstice_command
from engine.config import GenerateConfig, PipelineConfig
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import save_generator
from engine.options import Options, Size
from tests import ROOT
from tests.images import photo

NUM_PHOTOS = 80


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "engine", *map(str, arguments)]


def solstice(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=200)


def eager(src: Path, dst: Path, model: Path, *more: str) -> Sequence[str | Path]:
    return ("convert", src, dst, "--model", model, "--size", "native", "--backend", "eager", "--device", "cpu", *more)


def files(dst: Path) -> dict[str, bytes]:
    """Return the results by name, without the manifest's folder."""
    return {path.name: path.read_bytes() for path in dst.iterdir() if path.is_file()}


def states(dst: Path) -> dict[str, int]:
    """Count the manifest's entries by state, after checking that the database is whole."""
    with sqlite3.connect(dst / FOLDER / "manifest.sqlite") as manifest:
        assert manifest.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = dict(manifest.execute("SELECT state, count(*) FROM image GROUP BY state"))
    manifest.close()
    return counted


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that is slow enough for a signal to arrive in the middle of an archive."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "slow.safetensors"
    save_generator(path, ResnetGenerator(Architecture(blocks=4, ngf=16)), Card(name="slow"))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    src = tmp_path_factory.mktemp("archive")
    for i in range(NUM_PHOTOS):
        (src / f"{i:03}.jpg").write_bytes(photo(128 + 16 * (i % 2), 112, seed=i))
    return src


@pytest.fixture(scope="module")
def undisturbed(archive: Path, slow_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of an undisturbed run."""
    dst = tmp_path_factory.mktemp("undisturbed")
    config = PipelineConfig(
        options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
    )
    assert convert(archive, dst, slow_model, config).converted == NUM_PHOTOS
    return files(dst)


def start_and_wait_for_results(dst: Path, arguments: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a run; return when it has stored a few results."""
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 150
    while len(list(dst.glob("*.jpg"))) < 6:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "no results"
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_that_is_started_again_ends_like_an_undisturbed_one(
    number: signal.Signals, code: int, archive: Path, slow_model: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Files are equal byte for byte; no file is partly written, and no temporary file is left."""
    process = start_and_wait_for_results(tmp_path, eager(archive, tmp_path, slow_model))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    if code == 130:
        assert (stdout, stderr.strip()) == ("", "Interrupted; run the same command again to continue.")
    stored = files(tmp_path)
    assert 6 <= len(stored) < NUM_PHOTOS
    assert stored.items() <= undisturbed.items()
    recorded = states(tmp_path).get("done", 0)
    assert recorded <= len(stored)

    again = solstice(*eager(archive, tmp_path, slow_model, "--json"))
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["converted"], summary["skipped"]) == (NUM_PHOTOS - recorded, recorded)
    assert files(tmp_path) == undisturbed
    assert states(tmp_path) == {"done": NUM_PHOTOS}
    assert list((tmp_path / FOLDER).glob("partial/*")) == []


def test_a_second_run_at_the_same_time_is_refused_and_the_first_continues(
    archive: Path, slow_model: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    first = start_and_wait_for_results(tmp_path, eager(archive, tmp_path, slow_model))
    first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second has started
    second = solstice(*eager(archive, tmp_path, slow_model))
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert second.stderr.startswith("solstice: Another run is writing to")
    assert second.stderr.count("\n") == 1
    stdout, _ = first.communicate(timeout=150)
    assert first.returncode == 0
    assert f"{NUM_PHOTOS} converted" in stdout
    assert files(tmp_path) == undisturbed


KEYS = {"images", "converted", "skipped", "failed", "images_per_second", "seconds", "backend", "stages", "failures"}


def test_failures_end_with_exit_code_1_and_only_a_json_object_on_standard_output(
    model_file: Path, tmp_path: Path
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    for i in range(5):
        (src / f"{i}.jpg").write_bytes(photo(seed=i))
    (src / "cut.jpg").write_bytes(photo(200, 150)[:-2000])
    done = solstice(*eager(src, dst, model_file, "--json"))
    assert done.returncode == 1
    assert done.stderr == "", "neither a progress bar nor what libraries write"
    summary = json.loads(done.stdout)
    assert set(summary) == KEYS | {"report", "remarks", "renamed", "left_out", "sidecars", "output"}
    assert [summary[key] for key in ("images", "converted", "skipped", "failed")] == [6, 5, 0, 1]
    assert summary["failures"] == [
        {"path": "cut.jpg", "stage": "decode", "error": summary["failures"][0]["error"]},
    ]
    assert "Premature end of JPEG" in summary["failures"][0]["error"]
    assert list(summary["stages"]) == ["read", "inspect", "decode", "generate", "encode", "store"]
    assert all(set(stage) == {"seconds", "images"} for stage in summary["stages"].values())
    assert 0 < summary["images_per_second"] <= 5 / summary["seconds"] + 1


def test_metrics_can_be_read_during_a_run(archive: Path, slow_model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*eager(archive, tmp_path, slow_model, "--metrics-port", "0")),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    announced = process.stderr.readline()
    assert announced.startswith("Metrics at http://127.0.0.1:"), "nothing outside this machine reaches it"
    address = announced.split()[-1]
    seen: list[float] = []
    while not seen or seen[-1] < 5:
        with urllib.request.urlopen(address, timeout=30) as answer:
            text = answer.read().decode()
        seen.append(sum(metric_values(text, 'solstice_jobs_total{outcome="done",reason=""}')))
        time.sleep(0.05)
    assert seen == sorted(seen)
    assert seen[-1] < NUM_PHOTOS
    assert sum(metric_values(text, 'solstice_stage_images_total{stage="generate"}')) >= seen[-1]
    with urllib.request.urlopen(address.replace("/metrics", "/healthz"), timeout=30) as answer:
        assert answer.status == 200
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stderr) == (0, "")
    assert f"{NUM_PHOTOS} converted" in stdout


def metric_values(text: str, series: str) -> list[float]:
    return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(series)]


def test_a_metrics_port_in_use_is_refused_before_anything_is_created(model_file: Path, tmp_path: Path) -> None:
    src = tmp_path / "a.jpg"
    src.write_bytes(photo(60, 40))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = solstice(*eager(src, tmp_path / "dst", model_file, "--metrics-port", port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"solstice: Metrics cannot be served at 127.0.0.1:{port}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "dst").exists()


@pytest.mark.needs_mount
def test_a_full_disk_ends_with_exit_code_2_and_keeps_the_manifest_intact(
    archive: Path, slow_model: Path, tmp_path: Path
) -> None:
    """The file system has 256 kB, in a namespace that is removed even if the test is killed."""
    dst, kept = tmp_path / "dst", tmp_path / "kept"
    dst.mkdir()
    script = """
        dst=$1 kept=$2; shift 2
        mount -t tmpfs -o size=256k tmpfs "$dst" && "$@"
        code=$?; cp -r "$dst" "$kept"; exit $code
    """
    run = command(*eager(archive, dst, slow_model, "--quality", "100", "--subsampling", "4:4:4"))
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", dst, kept, *run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2, done
    assert done.stderr.startswith("solstice: ")
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr or "full" in done.stderr
    assert states(kept).get("done", 0) <= len(files(kept)) < NUM_PHOTOS
    assert all(data.endswith(b"\xff\xd9") for data in files(kept).values()), "no JPEG is cut"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["convert", "/no/such/folder", "out", "--model", "m"], 'solstice: "/no/such/folder" does not exist.'),
        (["convert", ".", "out", "--model", "m", "--size", "12"], "Error: Invalid value for '--size': sides must be"),
    ],
)
def test_a_run_that_cannot_start_ends_with_exit_code_2_without_traceback(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        command(*arguments), cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_of_the_table_can_be_loaded(name: str) -> None:
    shown = CliRunner().invoke(solstice_command, [name, "--help"])

    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(f"Usage: solstice {name} ")


def test_ctrl_c_while_libraries_load_prints_no_traceback() -> None:
    """The signal arrives during imports, before the pipeline has its own handler."""
    arguments = command("convert", "no-such-folder", "out", "--model", "summer2winter")
    verbose = {**os.environ, "PYTHONVERBOSE": "1"}
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=verbose) as started:
        assert started.stderr is not None
        next(line for line in started.stderr if line.startswith("import 'torch._C'"))
        started.send_signal(signal.SIGINT)
        rest = started.stderr.read()

    assert started.returncode == 130
    assert "Traceback" not in rest
    assert "Interrupted" in rest


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_another_operating_system_is_refused(platform: str) -> None:
    script = f"import sys; from engine.cli.main import main; sys.platform = {platform!r}; main()"
    done = subprocess.run([sys.executable, "-c", script, "doctor"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("solstice: Solstice runs on Linux only; ")
    assert done.stderr.count("\n") == 1


def test_an_unusable_url_ends_with_exit_code_2_and_one_sentence(model_file: Path, tmp_path: Path) -> None:
    for src, dst in (("ftp://127.0.0.1:1/x", tmp_path / "dst"), ("nosuch://x", tmp_path / "dst")):
        done = solstice("convert", src, dst, "--model", model_file)
        assert done.returncode == 2
        assert done.stderr.startswith("solstice: ")
        assert done.stderr.count("\n") == 1
        assert not dst.exists()
