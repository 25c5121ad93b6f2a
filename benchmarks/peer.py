"""The reference test loop against `solstice convert` on the same photos, each as a whole process, in turn.

The loop is what people run today: Pillow decodes, one image at a time goes through the fp32 module, PNG comes out.
`solstice convert --size 256x256` runs with its compile cache warm. Both read the same checkpoint values.

    python -m benchmarks.peer                       # random weights, made-up photos
    python -m benchmarks.peer --photos DIR --model FILE --count 64 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import (
    generator_gflop,
    make_model,
    make_photos,
    matmul_gflops,
    report,
    run,
    seconds,
    spread,
)
from engine.model.weights import load_generator

SIDE = 256  # pixels


def reference_loop(photos: Path, model: Path, out: Path) -> None:
    """Translate one image at a time in fp32, as the reference implementation's test script does."""
    module = load_generator(model).module
    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for path in sorted(photos.iterdir()):
            image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            x = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
            y = (module(x)[0].permute(1, 2, 0) + 1) / 2 * 255
            Image.fromarray(y.numpy().astype(np.uint8)).save(out / f"{path.stem}.png")


def main() -> None:
    """Parse, measure in turn, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of images; made up when not given")
    parser.add_argument("--model", type=Path, help="model file; random weights when not given")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", nargs=3, type=Path, metavar=("PHOTOS", "MODEL", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        reference_loop(*arguments.loop)
        return
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), arguments)


def measure(scratch: Path, arguments: argparse.Namespace) -> None:
    """Run both, alternated, and compare images per second and pixels."""
    photos = _photos(scratch, arguments)
    model = arguments.model or make_model(scratch / "model.safetensors")
    arch = load_generator(model).module.arch
    gflop = generator_gflop(arch, SIDE, SIDE)
    ceilings = {
        name: round(matmul_gflops(dtype) / gflop, 2)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(f"ceiling from a large matrix product: {ceilings} images/s of {gflop:.1f} GFLOP each")

    def solstice(out: Path, *options: str) -> None:
        run("-m", "engine", "convert", photos, out, "--model", model, "--size", f"{SIDE}x{SIDE}", "--overwrite",
            "--format", "png", *options)  # fmt: skip

    solstice(scratch / "warm", "--backend", "inductor")  # compile once, outside the measurement
    rounds = [
        (
            seconds(lambda: run("-m", "benchmarks.peer", "--loop", photos, model, scratch / "loop")),
            seconds(lambda: solstice(scratch / "solstice")),
        )
        for _ in range(arguments.rounds)
    ]
    solstice(scratch / "fp32", "--backend", "eager")
    result = {
        "images": arguments.count,
        "network": f"ResNet-{arch.blocks} ngf {arch.ngf}",
        "ceiling_images_per_s": ceilings,
        "reference_images_per_s": spread([arguments.count / loop_s for loop_s, _ in rounds]),
        "solstice_images_per_s": spread([arguments.count / ours_s for _, ours_s in rounds]),
        "ratio": spread([loop_s / ours_s for loop_s, ours_s in rounds]),
        "psnr_db_against_fp32": round(_psnr(scratch / "solstice", scratch / "fp32"), 2),
    }
    print(json.dumps(result, indent=2))
    report("peer", result)


def _photos(scratch: Path, arguments: argparse.Namespace) -> Path:
    folder = scratch / "photos"
    if arguments.photos is None:
        make_photos(folder, arguments.count)
        return folder
    folder.mkdir()
    for path in sorted(arguments.photos.iterdir())[: arguments.count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _psnr(one: Path, other: Path) -> float:
    """Peak signal-to-noise ratio in dB over all images of two folders."""
    errors = [
        np.square(_pixels(path) - _pixels(other / path.name)).mean()
        for path in sorted(one.iterdir())
        if path.suffix == ".png"
    ]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(path), np.float64)


if __name__ == "__main__":
    main()
