"""Everything but the generator: how many images a second decode, manifest, encode and the disk let through.

The generator is replaced by an inversion of the pixels. Memory is compared between a small and a large archive, and a
second run over the finished large one is timed to its end.

    python -m benchmarks.plumbing --count 20000
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import make_photos, report, run, seconds
from engine.archive.convert import convert
from engine.config import BatchConfig, PipelineConfig
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator
from engine.options import Options, Size

DIFFERENT = 200  # photos; an archive links to these again and again


def invert(pixels_NHWC: Tensor) -> Tensor:
    """Stand in for a generator."""
    return torch.from_numpy(255 - pixels_NHWC.numpy())


def one_run(src: Path, dst: Path) -> None:
    """Convert once in this process and print rate, time to the end and peak memory."""
    generator = Generator(ResnetGenerator(Architecture(ngf=4, blocks=1)), Card(name="invert"), "invert")
    config = PipelineConfig(options=Options(size=Size.parse("256x256")), batch=BatchConfig(size=8))
    started_cpu_s = time.process_time()
    summary = convert(src, dst, generator, config, translate=lambda _: invert)
    cpu_s = time.process_time() - started_cpu_s
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(summary.images_per_second, cpu_s, peak_bytes, summary.converted + summary.skipped)


def main() -> None:
    """Parse, measure each run in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="images in the large archive")
    parser.add_argument("--one-run", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_run:
        one_run(*arguments.one_run)
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        measure(Path(scratch), arguments.count)


def measure(scratch: Path, count: int) -> None:
    """Compare 1,000 images with `count`, then run again over the finished archive."""
    make_photos(scratch / "photos", DIFFERENT)
    small, large = _archive(scratch, 1000), _archive(scratch, count)
    small_rate, small_cpu_s, small_bytes, _ = _measured(small, scratch / "small-out")
    large_rate, large_cpu_s, large_bytes, _ = _measured(large, scratch / "large-out")
    resume_s = seconds(lambda: _measured(large, scratch / "large-out"))
    result = {
        "images": count,
        "images_per_s": {"1000": small_rate, f"{count}": large_rate},
        "cpu_ms_per_image": {
            "1000": round(small_cpu_s, 3),
            f"{count}": round(large_cpu_s / count * 1e3, 3),
        },
        "peak_megabytes": {"1000": round(small_bytes / 1e6), f"{count}": round(large_bytes / 1e6)},
        "second_run_s_with_start": round(resume_s, 2),
    }
    report("plumbing", result)


def _archive(scratch: Path, count: int) -> Path:
    """Make a folder of `count` names for the photos, a thousand a sub-folder."""
    photos = sorted((scratch / "photos").iterdir())
    root = scratch / f"archive-{count}"
    for i in range(count):
        folder = root / f"{i // 1000:04d}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        os.link(photos[i % len(photos)], folder / f"{i:06d}.jpg")
    return root


def _measured(src: Path, dst: Path) -> list[float]:
    output = run("-m", "benchmarks.plumbing", "--one-run", src, dst).stdout
    return [float(word) for word in output.split()[-4:]]


if __name__ == "__main__":
    main()
