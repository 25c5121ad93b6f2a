"""Export ONNX files that equal the fp32 module at any size; a file that does not is not written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Architecture, Card
from engine.model.network import build_generator
from engine.model.onnx_run import choose_by_running
from engine.model.reference import read_checkpoint
from engine.model.weights import Generator, load_generator, save_generator
from engine.runtime.backends.base import PixelGenerator
from engine.runtime.export.onnx import export_onnx, verify, write_verified
from tests.engine.model.layouts import randomised


def test_an_onnx_file_takes_and_returns_pixels_of_any_size(exported: Path, generator: Generator) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 52, 3), dtype=np.uint8)
    (translated,) = session.run(None, {"images": pixels})
    expected = PixelGenerator(generator.module, torch.float32)(torch.from_numpy(pixels))
    assert np.abs(translated.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_an_onnx_file_has_the_card_and_no_paths_of_source_code(exported: Path, generator: Generator) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert Card.from_json(metadata[CARD_KEY]) == generator.card
    assert b".py" not in exported.read_bytes()


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    path = tmp_path_factory.mktemp("unet") / "unet.safetensors"
    module = build_generator(Architecture(network="unet", levels=5, ngf=4, norm="batch", bias=False, channels_in=1))
    randomised(module)
    save_generator(path, module, Card(name="unet"), torch.float32)
    return load_generator(path)


def test_a_raw_fp16_file_of_a_u_net_takes_floats(unet: Generator, tmp_path: Path) -> None:
    result = export_onnx(unet, tmp_path / "net.onnx", dtype="fp16", raw=True)
    assert result.psnr_db > 40
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 96)).astype(np.float32)
    (translated,) = session.run(None, {"images": images})
    with torch.no_grad():
        assert np.abs(translated - unet.module(torch.from_numpy(images)).numpy()).max() < 0.05
    weights = sum(value.numel() for value in unet.module.state_dict().values())
    assert (tmp_path / "net.onnx").stat().st_size < 2.5 * weights  # two bytes each


def test_a_file_that_fails_the_comparison_is_not_written(exported: Path, generator: Generator, tmp_path: Path) -> None:
    module = build_generator(generator.card.architecture)
    randomised(module)
    other = replace(generator, module=module)
    (tmp_path / "net.onnx").write_bytes(b"earlier")
    for dtype in ("fp32", "fp16"):
        with pytest.raises(
            SetupError, match=r"not written: ONNX Runtime's output differs .*dB, largest error \d+ of 255"
        ):
            write_verified(other, tmp_path / "net.onnx", exported.read_bytes(), dtype=dtype, raw=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_an_exported_file_can_be_imported_again(exported: Path, generator: Generator) -> None:
    module, error = choose_by_running(read_checkpoint(exported))
    assert error == 0
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in generator.module.state_dict().items())


def test_outputs_are_compared_on_three_sizes(generator: Generator) -> None:
    shapes = []
    right = PixelGenerator(generator.module, torch.float32)

    def run(pixels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(pixels.shape))
        translated: torch.Tensor = right(pixels)
        return translated if len(shapes) < 3 else 255 - translated

    assert verify(generator, run).max_error > 100
    assert len({shape[1:] for shape in shapes}) == len({shape[0] for shape in shapes}) == 3


def test_weights_that_do_not_fit_in_one_file_are_refused(generator: Generator, tmp_path: Path) -> None:
    with torch.device("meta"):
        module = build_generator(Architecture(blocks=64, ngf=512))
    with pytest.raises(SetupError, match=r"take [\d,]+ bytes, more than an ONNX file holds; use --dtype fp16"):
        export_onnx(replace(generator, module=module), tmp_path / "net.onnx")
