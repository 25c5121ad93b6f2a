"""The reference implementation against `solstice convert` on the same photos, each as a whole process, in turn.

With `--reference DIR` it is the `test.py` of a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, which needs its own
requirements. Without, it is a loop of the same steps: Pillow decodes, one image at a time goes through the fp32
network, a PNG is written. Both sides have the same weights, and `convert` has its compile cache warm.

    python -m benchmarks.peer                                           # random weights, 300 photos
    python -m benchmarks.peer --reference ~/pytorch-CycleGAN-and-pix2pix
    python -m benchmarks.peer --photos DIR --model FILE --count 64 --rounds 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import (
    generator_gflop,
    make_model,
    make_photos,
    matmul_gflops,
    measure_process,
    report,
    spread,
)
from engine.model.card import find_model
from engine.model.weights import load_generator

SIDE = 256
"""Pixels."""
NAME = "peer"
"""Of the experiment, as the reference names its folders."""


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
    """Parse, measure in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkout of the reference implementation")
    parser.add_argument("--photos", type=Path, help="folder of images; made from the samples by default")
    parser.add_argument("--model", help="model name or file; random weights of the published network by default")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="inductor", help="of `convert`; inductor is what a larger run uses")
    parser.add_argument("--loop", nargs=3, type=Path, metavar=("PHOTOS", "MODEL", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        reference_loop(*arguments.loop)
        return
    if arguments.reference is not None and not (arguments.reference / "test.py").is_file():
        parser.error(f"--reference {arguments.reference} holds no test.py")
    with tempfile.TemporaryDirectory() as scratch:
        report("peer", measure(Path(scratch), arguments))


def measure(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both, alternated, and compare images per second and pixels."""
    photos = _photos(scratch, arguments)
    count = sum(1 for _ in photos.iterdir())
    model = find_model(arguments.model) if arguments.model else make_model(scratch / "model.safetensors")
    arch = load_generator(model).module.arch
    gflop = generator_gflop(arch, SIDE, SIDE)
    ceilings = {
        name: round(matmul_gflops(dtype) / gflop, 2)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(f"ceiling from a large matrix product: {ceilings} images/s of {gflop:.1f} GFLOP each", flush=True)
    convert = [sys.executable, "-m", "engine", "convert", photos]
    options = ["--model", model, "--size", f"{SIDE}x{SIDE}", "--overwrite", "--format", "png"]
    options += ["--backend", arguments.backend]
    measure_process([*convert, scratch / "warm", *options])  # compiles, outside the rounds
    peer, cwd, results = _peer(scratch, photos, model, arguments.reference, count)
    rounds = []
    for _ in range(arguments.rounds):
        theirs = measure_process(peer, cwd)
        ours = measure_process([*convert, scratch / "solstice", *options])
        rounds.append((theirs, ours))
        print(f"{theirs.seconds:.1f} s against {ours.seconds:.1f} s", flush=True)
    return {
        "images": count,
        "network": f"ResNet-{arch.blocks} ngf {arch.ngf}",
        "reference": "test.py of a checkout" if arguments.reference else "a loop of the same steps",
        "ceiling_images_per_s": ceilings,
        "reference_images_per_s": spread([count / theirs.seconds for theirs, _ in rounds]),
        "solstice_images_per_s": spread([count / ours.seconds for _, ours in rounds]),
        "ratio": spread([theirs.seconds / ours.seconds for theirs, ours in rounds]),
        "psnr_db_against_reference": round(psnr_db(scratch / "solstice", results), 2),
    }


def _peer(
    scratch: Path, photos: Path, model: Path, checkout: Path | None, count: int
) -> tuple[Sequence[object], Path | None, Path]:
    """Return the command to measure, its working folder, and where its results will be."""
    if checkout is None:
        return (
            [sys.executable, "-m", "benchmarks.peer", "--loop", photos, model, scratch / "loop"],
            None,
            scratch / "loop",
        )
    arch = load_generator(model).module.arch
    if arch.upsample != "transpose" or arch.learn_residual or arch.blocks != 9:
        raise SystemExit(f"The reference has no such network ({arch}); use its own checkpoints or random weights.")
    save_for_reference(model, scratch / "checkpoints")
    command = reference_command(checkout, photos, scratch, arch.ngf, count)
    return command, checkout, scratch / "results" / NAME / "test_latest" / "images"


def save_for_reference(model: Path, checkpoints: Path) -> None:
    """Write the weights of `model` where the reference looks for them, under its own names for the tensors."""
    folder = checkpoints / NAME
    folder.mkdir(parents=True)
    torch.save(load_generator(model).module.state_dict(), folder / "latest_net_G.pth")


def reference_command(checkout: Path, photos: Path, scratch: Path, ngf: int, count: int) -> list[object]:
    """Return the command line of the reference's test script for a one-sided CycleGAN test on the CPU."""
    command: list[object] = [sys.executable, "test.py", "--dataroot", photos, "--name", NAME, "--model", "test"]
    command += ["--no_dropout", "--ngf", ngf, "--num_test", count]
    command += ["--checkpoints_dir", scratch / "checkpoints", "--results_dir", scratch / "results"]
    command += ["--load_size", SIDE, "--crop_size", SIDE]
    if "--gpu_ids" in (checkout / "options" / "base_options.py").read_text():  # newer versions find out themselves
        command += ["--gpu_ids", "-1"]
    return command


def _photos(scratch: Path, arguments: argparse.Namespace) -> Path:
    folder = scratch / "photos"
    if arguments.photos is None:
        make_photos(folder, arguments.count)
        return folder
    folder.mkdir()
    for path in sorted(arguments.photos.iterdir())[: arguments.count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def psnr_db(ours: Path, theirs: Path) -> float:
    """Return the peak signal-to-noise ratio in dB over all images of two folders.

    The reference writes `NAME_fake.png` (some versions `NAME_fake_B.png`) beside the photo itself.
    """
    errors = []
    for path in sorted(ours.glob("*.png")):
        names = [f"{path.stem}{suffix}.png" for suffix in ("", "_fake", "_fake_B")]
        other = next(theirs / name for name in names if (theirs / name).exists())
        errors.append(np.square(_pixels(path) - _pixels(other)).mean())
    return float(10 * np.log10(255**2 / np.mean(errors)))


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(path), np.float64)


if __name__ == "__main__":
    main()
