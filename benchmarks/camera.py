"""Camera photos: `solstice convert` with its defaults against the 15 lines that one would write without it.

The 15 lines are `benchmarks/simple_script.py`: Pillow, the fp32 network at 512 pixels, Pillow. They enlarge the result
without the photo's detail, which `convert` restores. Both run as whole processes, in turn, with the compile cache warm.

    python -m benchmarks.camera                              # 16 photos of 12 MP, the shipped summer2winter
    python -m benchmarks.camera --megapixels 24 --count 8
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import ProcessUse, make_photos, measure_process, report, spread
from engine.model.card import find_model

SCRIPT = Path(__file__).with_name("simple_script.py")


def main() -> None:
    """Parse, measure in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="summer2winter", help="name or file")
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--count", type=int, default=16, help="photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="inductor", help="of `convert`; inductor is what a larger run uses")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report("camera", measure(Path(scratch), arguments))


def measure(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both ways over the same photos, alternated, after one run of each that is not counted."""
    height = 4 * round((arguments.megapixels * 1e6 / (4 / 3)) ** 0.5 / 4)
    width = 4 * round(arguments.megapixels * 1e6 / height / 4)
    make_photos(scratch / "in", arguments.count, width, height)
    model = find_model(arguments.model)
    script = [sys.executable, SCRIPT, model, scratch / "in", scratch / "script"]
    convert = [sys.executable, "-m", "engine", "convert", scratch / "in", scratch / "solstice"]
    convert += ["--model", model, "--backend", arguments.backend, "--overwrite"]
    rounds = [(measure_process(script), measure_process(convert)) for _ in range(arguments.rounds + 1)][1:]
    scripts, ours = [one for one, _ in rounds], [other for _, other in rounds]
    return {
        "photos": arguments.count,
        "width": width,
        "height": height,
        "script": _per_image(scripts, arguments.count),
        "solstice": _per_image(ours, arguments.count),
        "ratio": spread([one.seconds / other.seconds for one, other in rounds]),
    }


def _per_image(uses: list[ProcessUse], count: int) -> dict[str, Any]:
    return {
        "images_per_s": spread([count / use.seconds for use in uses]),
        "cpu_s_per_image": spread([use.cpu_s / count for use in uses]),
        "peak_megabytes": spread([use.peak_bytes / 1e6 for use in uses]),
    }


if __name__ == "__main__":
    main()
