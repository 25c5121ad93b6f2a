"""How long short commands take as whole processes, with everything warm: `--version`, `--help`, one photo.

python -m benchmarks.start --model summer2winter
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import make_photos, measure_process, report, spread


def main() -> None:
    """Parse, measure in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="summer2winter", help="name or file")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report("start", measure(Path(scratch), arguments))


def measure(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all commands in turn, after one round that is not counted."""
    make_photos(scratch / "in", 1)
    solstice = [sys.executable, "-m", "engine"]
    convert = [*solstice, "convert", scratch / "in", scratch / "out", "--model", arguments.model, "--overwrite"]
    commands = {"--version": [*solstice, "--version"], "--help": [*solstice, "--help"], "one photo": convert}
    rounds = [
        {name: measure_process(command) for name, command in commands.items()} for _ in range(arguments.rounds + 1)
    ]
    return {
        name: {
            "seconds": spread([uses[name].seconds for uses in rounds[1:]]),
            "cpu_s": spread([uses[name].cpu_s for uses in rounds[1:]]),
        }
        for name in commands
    }


if __name__ == "__main__":
    main()
