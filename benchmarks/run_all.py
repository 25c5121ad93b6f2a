"""Run all benchmarks on this machine, keep their results in `benchmarks/results/`, and make RESULTS.md from them.

One file per machine. Each result is written as soon as it is there, so that a run that is interrupted keeps what it has
measured; the same command then measures everything again, and `--only` some of it. Leave the machine alone meanwhile.

    python -m benchmarks.run_all                                # an hour and a half on two cores
    python -m benchmarks.run_all --reference ~/pytorch-CycleGAN-and-pix2pix
    python -m benchmarks.run_all --quick                        # ten minutes
    python -m benchmarks.run_all --only peer camera-12mp
    python -m benchmarks.run_all --out h200 --add bench=h200.json gpu=gpu-results.json    # measured elsewhere
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import render
from benchmarks.common import machine
from engine.system.files import write_atomically

SCHEMA = "solstice-results/1"


def plan(*, quick: bool, reference: Path | None, on_gpu: bool) -> dict[str, list[str]]:
    """Return for each result its command, without the interpreter."""
    bench = ["-m", "engine", "bench", "--json", "-", *(["--quick"] if quick else [])]
    peer = ["-m", "benchmarks.peer", "--count", "32" if quick else "300"]
    camera = ["-m", "benchmarks.camera", *(["--count", "4", "--rounds", "2"] if quick else [])]
    counts = ["100", "1000", *([] if quick else ["10000", "100000"])]
    sizes = ["1", "4", *([] if quick else ["16", "100"])]
    commands = {
        "bench": bench,
        "bench-ngf64": [*bench, "--ngf", "64"],
        "start": ["-m", "benchmarks.start"],
        "peer": peer if reference is None else [*peer, "--reference", str(reference)],
        "camera-12mp": camera,
        "camera-24mp": [*camera, "--megapixels", "24"],
        "parity": ["-m", "benchmarks.parity", *([] if quick else ["--compiled"])],
        "runtimes": ["-m", "benchmarks.runtimes"],
        "runtimes-shipped": ["-m", "benchmarks.runtimes", "--model", "summer2winter"],
        "scaling-cores": ["-m", "benchmarks.scaling", "cores"],
        "scaling-pinning": ["-m", "benchmarks.scaling", "pinning"],
        "scaling-batch": ["-m", "benchmarks.scaling", "batch"],
        "scaling-archive": ["-m", "benchmarks.scaling", "archive", "--counts", *counts],
        "scaling-megapixels": ["-m", "benchmarks.scaling", "megapixels", "--ngf", "32", "--megapixels", *sizes],
        "full-size-whole": ["-m", "benchmarks.full_size", "whole", "--megapixels", "1", "4"],
        "full-size-guided": ["-m", "benchmarks.full_size", "guided", "--megapixels", "24"],
        "stream": ["-m", "benchmarks.stream", *(["--jobs", "1000", "--rounds", "2"] if quick else [])],
    }
    if on_gpu:
        commands["gpu"] = ["-m", "benchmarks.gpu"]
    return commands


def main() -> None:
    """Parse, run, keep, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these results; the others are kept")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, photos and sizes")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkout of the reference implementation")
    parser.add_argument("--add", nargs="+", metavar="NAME=FILE", help="add results that were measured elsewhere")
    parser.add_argument(
        "--out", metavar="NAME", help="name of the file in benchmarks/results; by default of this machine"
    )
    arguments = parser.parse_args()
    commands = plan(quick=arguments.quick, reference=arguments.reference, on_gpu=torch.cuda.is_available())
    unknown = [name for name in arguments.only or () if name not in commands]
    if unknown:
        parser.error(f"no such result: {', '.join(unknown)} (known: {', '.join(commands)})")
    path = render.RESULTS / f"{arguments.out or machine_name(machine())}.json"
    if arguments.add:
        for name, file in (word.split("=", 1) for word in arguments.add):
            keep(path, name, {"command": f"added from {Path(file).name}", **_read(Path(file))})
    else:
        for name in arguments.only or commands:
            print(f"== {name}: python {' '.join(commands[name])}", flush=True)
            keep(path, name, measure(commands[name]))
    render.main()
    print(f"Results are in {path}, and in {render.PAGE}.")


def measure(command: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark; return its date, its command and the last line of its output, or why there is none."""
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    run: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python {' '.join(command)}",
        "seconds": round(time.monotonic() - started_s, 1),
    }
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return {**run, "failed": f"exit code {done.returncode}; the reason is on the terminal"}
    return {**run, "result": json.loads(lines[-1])}


def keep(path: Path, name: str, run: Mapping[str, Any]) -> None:
    """Put one result into the file of a machine, in the place of an earlier one."""
    document: dict[str, Any] = {"schema": SCHEMA, "machine": {}, "runs": {}}
    if path.exists():
        document = json.loads(path.read_text())
    document["machine"] = run.get("result", {}).get("machine") or document["machine"] or machine()
    document["runs"][name] = dict(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def machine_name(facts: Mapping[str, Any]) -> str:
    """Return a name for the file of a machine: processor, cores, and the GPU where there is one."""
    words = f"{facts['cpu']} {facts['cores']} cores {facts['gpu'] or ''}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _read(file: Path) -> dict[str, Any]:
    """Read a document of one benchmark; the date is that of the file where the document has none."""
    result = json.loads(file.read_text())
    date = str(result.get("created", ""))[:10] or time.strftime("%Y-%m-%d", time.localtime(file.stat().st_mtime))
    return {"date": date, "result": result}


if __name__ == "__main__":
    main()
