"""Rate of `convert --on ray` on this machine's cores, relative to `convert`.

    python -m benchmarks.on_ray --photos 200 --rounds 3 --actors 1

Both translate the same photos with the same generator, in turn, on one cluster of this machine. The rate is that of the
run's summary, which leaves out the start of Ray and of the actors. The processor time is that of all processes while
photos are translated, Ray's own included; on a busy machine it says more than the rate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.common import make_model, make_photos, report
from engine.archive.convert import convert
from engine.archive.distributed.cluster import LOCAL, connected, require_ray
from engine.archive.distributed.run import convert_on_ray
from engine.archive.run import RunProgress, Summary
from engine.config import GenerateConfig, PipelineConfig, num_cores
from engine.options import Options, Size
from engine.records import Outcome

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure both in turn; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--backend", default="eager")
    arguments = parser.parse_args()
    config = PipelineConfig(
        options=Options(size=Size.parse("256")), generate=GenerateConfig(backend=arguments.backend, device="cpu")
    )
    require_ray()
    found: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder, connected(LOCAL):
        work = Path(folder)
        make_photos(work / "photos", arguments.photos)
        model = make_model(work / "model.safetensors", ngf=arguments.ngf)
        runs: dict[str, Callable[..., Summary]] = {
            "local": convert,
            "ray": partial(convert_on_ray, actors=arguments.actors),
        }
        for number in range(arguments.rounds):
            for name, run in runs.items():
                clock = ProcessorClock()
                summary = run(work / "photos", work / f"{name}-{number}", model, config, progress=clock)
                row = {"images_per_s": summary.images_per_second, "cpu_s_per_image": clock.seconds / summary.converted}
                found[name].append(row)
                print(name, row, flush=True)
    median = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()
    }
    report(
        "on_ray",
        {
            "cores": num_cores(),
            "actors": arguments.actors,
            "rounds": found,
            "rate_of_local": median["ray"]["images_per_s"] / median["local"]["images_per_s"],
            "cpu_time_of_local": median["ray"]["cpu_s_per_image"] / median["local"]["cpu_s_per_image"],
        },
    )


class ProcessorClock:
    """Processor time of this process and all below it, from the first image that ends to the last one."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started_s: float | None = None

    def __call__(self, outcome: Outcome | None, _: RunProgress) -> None:
        """Take the time at each outcome."""
        if outcome is None:
            return
        now_s = processor_seconds(os.getpid())
        self._started_s = now_s if self._started_s is None else self._started_s
        self.seconds = now_s - self._started_s


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that are still there, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S + sum(processor_seconds(child) for child in children)


if __name__ == "__main__":
    main()
