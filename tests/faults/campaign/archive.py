"""Kill `convert`, fill its disk and forbid it to write; the next run must end as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.faults.campaign.checks import Counts, require
from tests.faults.campaign.mounts import may_mount, mount_small_disk, read_only, small_disk, without_override
from tests.stream.stream import eventually, photo, tiny_model

_START = "import sys; from engine.cli.main import main; main()"
_ROOM = 64 << 20


def archive(seed: int, kills: int, photos: int = 40, disks: int = 3) -> Counts:
    """Disturb `convert` and compare what the last run leaves with a run that nothing disturbed."""
    moods, counts = random.Random(seed), Counts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model(folder / "tiny.safetensors")
        for i in range(photos):
            path = folder / "src" / f"{i % 5}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(i, 400, 300)[: 500 if i % 20 == 7 else None])
        converts = _Converts(folder, model)
        expected = converts.undisturbed()
        counts += _kills(converts, expected, moods, kills)
        counts += _read_only(converts, expected, moods)
        for _ in range(disks):
            counts += _full_disk(converts, expected, moods)
        counts["photos compared each time"] = photos
    return counts


def _kills(converts: _Converts, expected: dict[str, Any], moods: random.Random, kills: int) -> Counts:
    """Kill runs until one ends, compare, and begin again with an empty folder."""
    counts = Counts()
    dst = converts.folder / "killed"
    while counts["kills"] < kills:
        process = converts.fork(dst)
        process.join(moods.uniform(0.0, 1.1) * converts.seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            counts["kills"] += 1
            converts.seconds *= 1.05
            _check_whole(dst, expected)
            continue
        converts.seconds *= 0.85  # so that most runs are killed, whatever else the machine does
        require(process.exitcode in (0, 1), f"a run after kills ended with {process.exitcode}")
        _check_tree(dst, expected)
        shutil.rmtree(dst)
        counts["runs that ended between kills"] += 1
    process = converts.fork(dst)
    process.join()
    require(process.exitcode in (0, 1), f"a run after kills ended with {process.exitcode}")
    _check_tree(dst, expected)
    return counts


def _read_only(converts: _Converts, expected: dict[str, Any], moods: random.Random) -> Counts:
    """Take the right to write away in the middle of a run, give it back, and run again."""
    prefix = without_override()
    if prefix is None:
        return Counts({"read-only outputs not tried (setpriv cannot limit root)": 1})
    dst = converts.folder / "locked"
    number = moods.randrange(1, 20)
    process = converts.start(dst, prefix)
    eventually(lambda: process.poll() is not None or len(list(dst.rglob("*.jpg"))) >= number)
    with read_only(dst):
        _, error = process.communicate()
    require(process.returncode in (0, 1, 2), f"a run into a read-only folder ended with {process.returncode}: {error}")
    require("Traceback" not in error, error)
    _check_whole(dst, expected)
    converts.complete(dst, expected)
    return Counts({"outputs made read-only": 1, f"runs that ended with {process.returncode} for it": 1})


def _full_disk(converts: _Converts, expected: dict[str, Any], moods: random.Random) -> Counts:
    """Convert onto a file system that is too small, then make it larger and convert again."""
    if not may_mount():
        return Counts({"full disks not tried (mounting is not permitted)": 1})
    dst = converts.folder / "full"
    dst.mkdir(exist_ok=True)
    with small_disk(dst, moods.randrange(100 << 10, 350 << 10)):
        process = converts.start(dst)
        _, error = process.communicate()
        require(process.returncode == 2, f"a full disk ended with {process.returncode}: {error[-300:]}")
        require("Traceback" not in error, error)
        left = list(dst.rglob(".solstice-*"))
        require(not left, f"temporary files are left on a full disk: {left[:5]}")
        mount_small_disk(dst, _ROOM)
        converts.complete(dst, expected)
    return Counts({"disks filled": 1})


class _Converts:
    """Runs of `convert` over the same photos."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self._model = model
        self.seconds = 0.0
        """How long an undisturbed run takes without the start of its process."""
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["engine.archive.convert", "engine.cli.convert"])

    def undisturbed(self) -> dict[str, Any]:
        """Convert once, measure that, and return what there is afterwards."""
        self.fork(self.folder / "first").join()
        started_s = time.monotonic()
        process = self.fork(self.folder / "whole")
        process.join()
        self.seconds = time.monotonic() - started_s
        require(process.exitcode in (0, 1), f"an undisturbed run ended with {process.exitcode}")
        return _tree(self.folder / "whole")

    def fork(self, dst: Path) -> ForkServerProcess:
        """Convert into `dst` in a fork of a process that has imported everything, so that kills hit the work."""
        process = self._context.Process(target=_main, args=(self._arguments(dst),))
        process.start()
        return process

    def start(self, dst: Path, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Convert into `dst` in a process of its own, whose command begins with `prefix`."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", _START, *self._arguments(dst)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def complete(self, dst: Path, expected: dict[str, Any]) -> None:
        """Convert into `dst` without a fault, and compare."""
        process = self.fork(dst)
        process.join()
        require(process.exitcode in (0, 1), f"a run after a fault ended with {process.exitcode}")
        _check_tree(dst, expected)

    def _arguments(self, dst: Path) -> list[str]:
        options = ["--model", str(self._model), "--backend", "eager", "--device", "cpu", "--size", "native"]
        return ["convert", str(self.folder / "src"), str(dst), *options]


def _main(arguments: list[str]) -> None:
    """Run the command line in a forked process, quietly."""
    import torch

    from engine.cli.main import main

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    torch.set_num_threads(1)
    sys.argv = ["solstice", *arguments]
    main()


def _tree(dst: Path) -> dict[str, Any]:
    """Return every result by its name, and the manifest's rows without their times."""
    files: dict[str, Any] = _files(dst)
    connection = sqlite3.connect(dst / ".solstice/manifest.sqlite")
    rows = connection.execute("SELECT key, identity, recipe, state, output, num_bytes, error FROM image ORDER BY key")
    files["manifest"] = rows.fetchall()
    connection.close()
    return files


def _files(dst: Path) -> dict[str, Any]:
    return {
        path.relative_to(dst).as_posix(): path.read_bytes()
        for path in dst.rglob("*")
        if path.is_file() and ".solstice" not in path.parts
    }


def _check_tree(dst: Path, expected: dict[str, Any]) -> None:
    found = _tree(dst)
    different = sorted(name for name in set(found) | set(expected) if found.get(name) != expected.get(name))
    require(not different, f"{dst.name} differs from an undisturbed run: {different[:5]}")
    left = list(dst.rglob(".solstice-*"))
    require(not left, f"temporary files are left: {left[:5]}")


def _check_whole(dst: Path, expected: dict[str, Any]) -> None:
    """Require that every result under its final name is whole; temporary files may be there."""
    for name, data in _files(dst).items():
        if not Path(name).name.startswith(".solstice-"):
            require(data == expected.get(name), f"half-written after a kill: {name}")
