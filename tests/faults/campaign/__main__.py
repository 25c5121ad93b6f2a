"""Break everything at random moments and count what is left: `make faults`, or `python -m tests.faults.campaign`.

Each part prints its seed and its counts. The same seed makes the same choices (photos, mutants, faults and their
order); the moment that a fault hits depends on the machine. Exit code 1 when anything is lost, half-written or left
over, with the command that repeats it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable

from tests.faults.campaign import record
from tests.faults.campaign.archive import archive
from tests.faults.campaign.checks import Counts
from tests.faults.campaign.mounts import enter_namespace
from tests.faults.campaign.mutants import mutants
from tests.faults.campaign.stream import stream

_NAME = "python -m tests.faults.campaign"


def main() -> None:
    """Run the parts that the command line names."""
    enter_namespace(["-m", "tests.faults.campaign", *sys.argv[1:]])
    parser = argparse.ArgumentParser(
        prog=_NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["mutants", "archive", "stream"], metavar="archive|stream|mutants")
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of a run; by default a new seed")
    parser.add_argument("--kills", type=int, default=100, help="kills of convert")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs of the stream")
    parser.add_argument("--stream-kills", type=int, default=30, help="SIGKILLs of workers")
    parser.add_argument("--stops", type=int, default=5, help="SIGSTOPs of workers past the session time-out")
    parser.add_argument("--mutants", type=int, default=20_000, help="damaged files")
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER", help="read only this mutant")
    options = parser.parse_args()
    seed: int = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    logs = record.FIGURES / f"logs-{seed}"
    parts: dict[str, Callable[[], Counts]] = {
        "archive": lambda: archive(seed, options.kills),
        "stream": lambda: stream(seed, options.jobs, options.stream_kills, options.stops, logs=logs),
        "mutants": lambda: mutants(seed, options.mutants, options.only),
    }
    campaign = record.document(" ".join([_NAME, *sys.argv[1:]]), seed)
    failed = False
    print(f"seed {seed}", flush=True)
    for name in options.parts:
        started_s = time.monotonic()
        verdict, counts = "held", Counts()
        try:
            counts = parts[name]()
        except AssertionError as error:  # `Broken`, or a wait that took too long
            verdict, failed = f"BROKEN: {error}", True
        seconds = time.monotonic() - started_s
        record.add(campaign, name, verdict, seconds, counts)
        told = "; ".join(f"{number:,} {what}" for what, number in counts.items())
        print(f"{name}: {verdict}, {seconds:.0f} s, seed {seed}: {told}", flush=True)
        if verdict != "held":
            print(f"To repeat it: {_NAME} {_repeat(name, sys.argv[1:], seed)}; logs: {logs}", flush=True)
    print(f"The figures are in {record.save(campaign)}.", flush=True)
    sys.exit(1 if failed else 0)


def _repeat(part: str, arguments: list[str], seed: int) -> str:
    """Return the arguments that repeat one part with its seed."""
    kept = [word for word in arguments if word not in ("archive", "stream", "mutants")]
    if "--seed" not in kept:
        kept += ["--seed", str(seed)]
    return " ".join([part, *kept])


if __name__ == "__main__":
    main()
