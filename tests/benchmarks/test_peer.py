"""The comparison with the reference implementation, tried on a stand-in with the same command line and files."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks.peer import measure, psnr_db, reference_command, save_for_reference
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import load_generator, save_generator
from tests import ROOT

STAND_IN = f"""
import argparse, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import numpy as np, torch
from PIL import Image
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
parser = argparse.ArgumentParser()
for name in ("dataroot", "name", "model", "checkpoints_dir", "results_dir", "gpu_ids"):
    parser.add_argument("--" + name, required=True)
for name in ("ngf", "num_test", "load_size", "crop_size"):
    parser.add_argument("--" + name, type=int, required=True)
parser.add_argument("--no_dropout", action="store_true")
options = parser.parse_args()
net = ResnetGenerator(Architecture(ngf=options.ngf))
net.load_state_dict(torch.load(Path(options.checkpoints_dir, options.name, "latest_net_G.pth")))
out = Path(options.results_dir, options.name, "test_latest", "images")
out.mkdir(parents=True)
for path in sorted(Path(options.dataroot).iterdir()):
    photo = Image.open(path).convert("RGB").resize((options.load_size, options.load_size), Image.Resampling.BICUBIC)
    with torch.no_grad():
        y = net(torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1)[0].permute(1, 2, 0)
    Image.fromarray(((y + 1) * 127.5).numpy().astype(np.uint8)).save(out / (path.stem + "_fake.png"))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peer") / "narrow.safetensors"
    arch = Architecture(ngf=4)
    save_generator(path, ResnetGenerator(arch), Card(name="narrow", architecture=arch), torch.float32)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "reference"
    (root / "options").mkdir(parents=True)
    (root / "options" / "base_options.py").write_text("parser.add_argument('--gpu_ids')")
    (root / "test.py").write_text(STAND_IN)
    return root


def test_a_checkout_runs_with_the_same_weights_and_gives_the_same_images(
    model: Path, checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    arguments = argparse.Namespace(
        reference=checkout, photos=None, model=str(model), count=2, rounds=1, backend="eager"
    )

    result = measure(tmp_path / "scratch", arguments)

    assert result["reference"] == "test.py of a checkout"
    assert result["images"] == 2
    assert result["psnr_db_against_reference"] > 35
    assert result["ratio"]["median"] > 0


def test_newer_versions_of_the_reference_get_no_gpu_ids(checkout: Path, tmp_path: Path) -> None:
    assert "--gpu_ids" in reference_command(checkout, tmp_path, tmp_path, 4, 2)

    (checkout / "options" / "base_options.py").write_text("")

    assert "--gpu_ids" not in reference_command(checkout, tmp_path, tmp_path, 4, 2)


def test_weights_are_written_under_the_references_own_names(model: Path, tmp_path: Path) -> None:
    save_for_reference(model, tmp_path)

    tensors = torch.load(tmp_path / "peer" / "latest_net_G.pth")
    assert set(tensors) == set(load_generator(model).module.state_dict())
    assert "model.1.weight" in tensors


def test_a_network_that_the_reference_lacks_is_refused(checkout: Path, tmp_path: Path, model_file: Path) -> None:
    from benchmarks.peer import _peer

    with pytest.raises(SystemExit, match="The reference has no such network"):
        _peer(tmp_path, tmp_path, model_file, checkout, 1)


def test_images_are_compared_under_the_names_that_the_reference_gives_them(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    Image.new("RGB", (4, 4), (10, 10, 10)).save(tmp_path / "ours" / "a.png")
    Image.new("RGB", (4, 4), (11, 11, 11)).save(tmp_path / "theirs" / "a_fake_B.png")

    assert psnr_db(tmp_path / "ours", tmp_path / "theirs") == pytest.approx(48.13, abs=0.01)
