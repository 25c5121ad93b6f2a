"""Train a pair of generators, export it, and translate a folder with it: the whole way, in seconds instead of days.

The two domains are made up: warm and cold gradients, 32 pixels a side. trainer/README.md describes what a real run
needs.

python examples/train_and_convert.py work --epochs 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from solstice import Architecture, GenerateConfig, Options, PipelineConfig, Size, convert
from solstice.trainer import DataConfig, Labels, MachineConfig, NetworkConfig, RunConfig, ScheduleConfig, fit
from trainer.export import export

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("work", nargs="?", type=Path, default=Path("train-example"), help="folder for everything")
parser.add_argument("--epochs", type=float, default=2)
arguments = parser.parse_args()
work: Path = arguments.work


def write_photos(folder: Path, light: tuple[int, int, int], dark: tuple[int, int, int]) -> None:
    """Write eight gradients between two colours."""
    folder.mkdir(parents=True)
    for number, angle in enumerate(np.linspace(0, 6, 8)):
        y, x = np.mgrid[-1:1:40j, -1:1:48j]
        share = (x * np.cos(angle) + y * np.sin(angle) + 1.5)[..., None] / 3
        pixels = share * np.array(light) + (1 - share) * np.array(dark)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


write_photos(work / "trainA", (255, 120, 30), (140, 30, 20))
write_photos(work / "trainB", (40, 130, 255), (20, 40, 130))

fit(
    RunConfig(
        data=DataConfig(train_a=work / "trainA", train_b=work / "trainB", load=36, crop=32),
        networks=NetworkConfig(architecture=Architecture(blocks=1, ngf=4, upsample="resize"), ndf=4),
        schedule=ScheduleConfig(epochs=arguments.epochs, batch=2),
        machine=MachineConfig(device="cpu", precision="fp32", compile=False, log_every=1),
    ),
    work / "run",
)
there, back = export(work / "run", work / "models", Labels(domain_a="warm", domain_b="cold"))
print("exported", there.name, "and", back.name)

config = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)
summary = convert(work / "trainA", work / "cold", there, config)
print(f"{summary.converted} photos translated by {there.stem}")
