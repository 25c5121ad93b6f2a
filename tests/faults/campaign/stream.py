"""Break everything at random moments and count what is left: `make faults`, or `python -m tests.faults.campaign`.

Each part prints its seed and its counts; the same seed makes the same choices (files, mutants, delays; only
the moment that a delay hits depends on the machine). Exit code 1 when anything is lost, half-written or left over.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.codec.decode import Decoder
from engine.codec.header import inspect_record
from engine.config import DecodeConfig
from engine.errors import SetupError
from engine.model.weights import load_file
from engine.options import Options, Size
from engine.records import Failed, Record
from tests import ROOT
from tests.images import photo, picture
from tests.stream.brokers import free_port, tansu
from tests.stream.stream import Stream, eventually, tiny_model
from tests.stream.stream import photo as job_photo

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF")
MUTANT_LIMIT_S = 20.0
"""A mutant that takes longer than this counts as a hang."""


class Broken(AssertionError):
    """Something was lost, half-written, left over or crashed."""


def require(condition: object, message: str) -> None:
    """Raise `Broken` unless `condition` holds."""
    if not condition:
        raise Broken(message)


# ---- (a) archives ----


def archive(seed: int, kills: int, photos: int = 40) -> Counter[str]:
    """Kill `convert` at random moments until it has finished, and compare with a run that nothing disturbed."""
    moods, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model(folder / "tiny.safetensors")
        for i in range(photos):
            path = folder / "src" / f"{i % 5}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo(400, 300, seed=seed + i)[: 500 if i % 20 == 7 else None])
        started_s = time.monotonic()
        _convert(folder, "whole", model).wait()
        whole_s = time.monotonic() - started_s
        expected = _tree(folder / "whole")
        dst = "killed"
        while counts["kills"] < kills:
            process = _convert(folder, dst, model)
            try:
                process.wait(moods.uniform(0.4, 1.05) * whole_s)
                counts["runs that ended before they were killed"] += 1
                _check_tree(folder / dst, expected)
                dst = f"killed-{counts['kills']}-{moods.random()}"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                counts["kills"] += 1
        require(_convert(folder, dst, model).wait() in (0, 1), "a run after kills did not end")
        _check_tree(folder / dst, expected)
        counts["photos compared"] += len(expected)
        counts += _read_only(folder, model, expected)
        counts += _full_disk(folder, model)
    return counts


def _convert(folder: Path, dst: str, model: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine", "convert", str(folder / "src"), str(folder / dst), "--model", str(model)]
    command += ["--backend", "eager", "--device", "cpu", "--size", "native", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _tree(dst: Path) -> dict[str, Any]:
    """Return every result by its name, and the manifest's rows without their times."""
    files: dict[str, Any] = {
        path.relative_to(dst).as_posix(): path.read_bytes()
        for path in dst.rglob("*")
        if path.is_file() and ".solstice" not in path.parts
    }
    connection = sqlite3.connect(dst / ".solstice/manifest.sqlite")
    rows = connection.execute("SELECT key, identity, recipe, state, output, num_bytes, error FROM image ORDER BY key")
    files["manifest"] = rows.fetchall()
    connection.close()
    return files


def _check_tree(dst: Path, expected: dict[str, Any]) -> None:
    found = _tree(dst)
    require(found == expected, f"{dst} differs: {sorted(set(found) ^ set(expected))[:5]}")
    left = list(dst.rglob(".solstice-*"))
    require(not left, f"temporary files are left: {left[:5]}")


def _read_only(folder: Path, model: Path, expected: dict[str, Any]) -> Counter[str]:
    """Take the right to write away in the middle of a run, give it back, and run again."""
    if os.geteuid() == 0:
        return Counter({"read-only folders not tried (root may write everywhere)": 1})
    process = _convert(folder, "locked", model)
    eventually(lambda: process.poll() is not None or len(list((folder / "locked").rglob("*.jpg"))) > 3)
    folders = [path for path in (folder / "locked", *(folder / "locked").rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    code = process.wait()
    for path in folders:
        path.chmod(0o755)
    require(code in (0, 1, 2), f"a run into a read-only folder ended with {code}")
    require(_convert(folder, "locked", model).wait() in (0, 1), "a run after that did not end")
    _check_tree(folder / "locked", expected)
    return Counter({"read-only folders": 1})


def _full_disk(folder: Path, model: Path) -> Counter[str]:
    """Convert onto a file system of 200 KB, then onto one with room."""
    script = """
mount -t tmpfs -o size=200k tmpfs "$1" || exit 99
shift
"$@"
code=$?
find "$5" -name '.solstice-*' | grep -q . && exit 98
exit $code
"""
    (folder / "full").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    convert = [
        sys.executable,
        "-m",
        "engine",
        "convert",
        str(folder / "src"),
        str(folder / "full"),
        "--model",
        str(model),
    ]
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(folder / "full"), *convert, "--backend", "eager"]
    done = subprocess.run(
        [*command, "--size", "native", "--device", "cpu"], env=environment, capture_output=True, text=True
    )
    if done.returncode == 99:
        return Counter({"full disks not tried (mounting is not permitted)": 1})
    require(done.returncode == 2, f"a full disk ended with {done.returncode}: {done.stderr[-300:]}")
    require("Traceback" not in done.stderr, done.stderr[-300:])
    return Counter({"full disks": 1})


# ---- (b) streams ----


def stream(seed: int, jobs: int, kills: int, stops: int) -> Counter[str]:
    """Kill and stop workers and take the input root away while jobs are done."""
    moods, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name, tansu(Path(name) / "broker.log", free_port()) as broker:
        folder = Path(name) / "stream"
        folder.mkdir()
        made = Stream(broker, folder, tiny_model(Path(name) / "tiny.safetensors"), partitions=8)
        good, bad = _submit(made, moods, jobs)
        workers = [made.process("--session-timeout", "6", wait=False) for _ in range(3)]
        finished = 0
        while finished < jobs:
            time.sleep(moods.uniform(1.0, 4.0))
            finished = made.committed()
            i = moods.randrange(3)
            if counts["SIGKILLs"] < kills:
                workers[i].send_signal(signal.SIGKILL)
                workers[i].wait()
                workers[i] = made.process("--session-timeout", "6", wait=False)
                counts["SIGKILLs"] += 1
            elif counts["SIGSTOPs past the session time-out"] < stops:
                workers[i].send_signal(signal.SIGSTOP)
                time.sleep(9)
                workers[i].send_signal(signal.SIGCONT)
                counts["SIGSTOPs past the session time-out"] += 1
            elif counts["input roots away"] < 1:
                made.inputs.rename(made.inputs.with_name("away"))
                time.sleep(5)
                made.inputs.with_name("away").rename(made.inputs)
                counts["input roots away"] += 1
            for j, worker in enumerate(workers):
                if worker.poll() is not None:
                    log = made.log(made._processes.index(worker)).read_text().splitlines()
                    counts[
                        f"workers that ended with {worker.returncode} ({log[-1].split(str(folder))[0] if log else ''})"
                    ] += 1
                    workers[j] = made.process("--session-timeout", "6", wait=False)
        results = made.results(len(good) + len(bad), seconds=120)
        done = {result["id"] for result in results if result["status"] == "done"}
        letters = {letter.key.decode() for letter in made.dead_letters(len(bad), seconds=120)}
        require(good <= done, f"lost: {sorted(good - done)[:5]}")
        require(bad <= letters, f"without a dead letter: {sorted(bad - letters)[:5]}")
        counts["good jobs that became dead letters"] = len(letters & good)
        for path, data in made.files().items():
            require(data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9", f"half-written: {path}")
        require(len(made.files()) == len(good), f"{len(made.files())} files of {len(good)}")
        counts["good jobs stored"] = len(good)
        counts["broken jobs in the dead letters"] = len(bad)
        counts["results sent twice or more"] = len(results) - len(good) - len(bad)
        made.close()
    return counts


def _submit(made: Stream, moods: random.Random, jobs: int) -> tuple[set[str], set[str]]:
    """Send jobs of which 2 % are broken; returns the ids of the good and of the broken ones."""
    good, bad = set[str](), set[str]()
    for i in range(jobs):
        id = f"job-{i}"
        broken = moods.random() < 0.02
        data = b"\xff\xd8 no image" if broken else job_photo(i)
        (bad if broken else good).add(id)
        made.submit(id=id, source=made.add_photo(f"{i}.jpg", data), output=f"{i:05d}.jpg")
    made.flush()
    return good, bad


# ---- (c) mutants ----


def mutants(seed: int, count: int) -> Counter[str]:
    """Decode damaged images of every format, and load damaged model files: no crash, no hang, neighbours unharmed."""
    moods, counts = random.Random(seed), Counter[str]()
    originals = [_encoded(format) for format in FORMATS]
    neighbour = photo(40, 30, seed=1)
    decoder, config = Decoder(DecodeConfig()), DecodeConfig(max_pixels=4_000_000)
    with tempfile.TemporaryDirectory() as name:
        model = tiny_model(Path(name) / "tiny.safetensors")
        whole = model.read_bytes()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(count):
            started_s = time.monotonic()
            if i % 5 == 4:
                counts[_load(model, mutant(moods, whole))] += 1
            else:
                counts[_decode(decoder, config, mutant(moods, moods.choice(originals)), neighbour)] += 1
            seconds = time.monotonic() - started_s
            require(seconds < MUTANT_LIMIT_S, f"mutant {i} of seed {seed} took {seconds:.1f} s")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        require(grown < 1024, f"memory grew by {grown:.0f} MiB")
    return counts


def mutant(moods: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, or a piece cut out, repeated, or swapped, mostly near the header."""
    changed = bytearray(data)
    reach = len(changed) if moods.random() < 0.5 else min(len(changed), 300)
    for _ in range(moods.choice((1, 1, 2, 5, 20))):
        at = moods.randrange(max(1, reach))
        kind = moods.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([moods.randrange(256)])
        elif kind == 1:
            changed[at : at + 4] = moods.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        elif kind == 2:
            del changed[at : at + moods.randrange(1, 200)]
        elif kind == 3:
            changed[at:at] = changed[at : at + moods.randrange(1, 200)]
        else:
            del changed[max(1, at) :]
    return bytes(changed)


def _encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    picture(60, 44).save(buffer, format)
    return buffer.getvalue()


def _decode(decoder: Decoder, config: DecodeConfig, data: bytes, neighbour: bytes) -> str:
    options = Options(size=Size.parse("32x32"))
    chunk = [
        inspect_record(Record(key=key, payload=d, options=options), config)
        for key, d in (("m", data), ("n", neighbour))
    ]
    answers = decoder(chunk)
    require(not isinstance(answers[1], Failed), f"a mutant harmed its neighbour: {answers[1]}")
    return "images refused" if isinstance(answers[0], Failed) else "images that decode all the same"


def _load(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        load_file(path)
    except SetupError as error:
        require("\n" not in str(error), f"more than one line: {error}")
        return "models refused"
    return "models that load all the same"


# ---- all of it ----


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["archive", "stream", "mutants"], metavar="archive|stream|mutants")
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of a run; by default a new seed")
    parser.add_argument("--kills", type=int, default=100, help="kills of convert")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of the stream")
    parser.add_argument("--stream-kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--mutants", type=int, default=20_000)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    parts: dict[str, Callable[[], Counter[str]]] = {
        "archive": lambda: archive(seed, options.kills),
        "stream": lambda: stream(seed, options.jobs, options.stream_kills, options.stops),
        "mutants": lambda: mutants(seed, options.mutants),
    }
    failed = False
    print(f"seed {seed}", flush=True)
    for name in options.parts:
        started_s = time.monotonic()
        try:
            counts = parts[name]()
            verdict = "held"
        except Broken as error:
            counts, verdict, failed = Counter(), f"BROKEN: {error}", True
        told = "; ".join(f"{number:,} {what}" for what, number in counts.items())
        print(f"{name}: {verdict}, {time.monotonic() - started_s:.0f} s, seed {seed}: {told}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
