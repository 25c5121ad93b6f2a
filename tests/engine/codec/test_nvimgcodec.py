"""Encode with nvImageCodec: with nvJPEG where there is a GPU, otherwise with its encoder for the CPU."""

from __future__ import annotations

import io
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from engine.codec.encode import Encoder, encode_device
from engine.codec.header import inspect
from engine.codec.nvimgcodec import GpuEncoder
from engine.config import EncodeConfig, GenerateConfig, PipelineConfig
from engine.options import Options
from engine.records import DecodedImage, Encoded, Metadata, Record
from engine.system.extras import install_hint
from tests.images import oriented, picture, pixels, psnr_db

CPU = torch.device("cpu")
DEVICES = [pytest.param(CPU, id="cpu"), pytest.param(torch.device("cuda", 0), id="cuda", marks=pytest.mark.needs_cuda)]

on_every_device = pytest.mark.parametrize("device", DEVICES)

SMALL, LARGE = np.array(picture(64, 48)), np.array(picture(240, 160))
FROM_PIXELS = 160 * 120


def record(
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], format: str = "jpeg", metadata: Metadata | None = None
) -> Record[DecodedImage]:
    held = DecodedImage(torch.from_numpy(array.copy()), "JPEG", metadata=metadata or Metadata())
    return Record(key="a", payload=held, options=Options(format=format))


def encode(encoder: Encoder, *records: Record[DecodedImage]) -> list[Encoded]:
    results = encoder(list(records))
    assert all(isinstance(result, Record) for result in results), results
    return [result.payload for result in results if isinstance(result, Record)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the shape of each image that the GPU's encoder receives."""
    shapes: list[tuple[int, ...]] = []
    work = GpuEncoder.__call__

    def note(
        self: GpuEncoder, pixels_HWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int, subsampling: str
    ) -> bytes | None:
        shapes.append(pixels_HWC.shape)
        return work(self, pixels_HWC, quality, subsampling)

    monkeypatch.setattr(GpuEncoder, "__call__", note)
    return shapes


@on_every_device
@pytest.mark.parametrize(("subsampling", "sampling"), [("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))])
def test_quality_and_subsampling_settings(subsampling: str, sampling: tuple[int, int], device: torch.device) -> None:
    encoder = GpuEncoder(device)
    results = [encoder(LARGE, quality, subsampling) for quality in (30, 60, 92)]
    assert all(results)
    sizes = [len(result or b"") for result in results]
    assert sizes == sorted(set(sizes))
    with Image.open(io.BytesIO(results[-1] or b"")) as image:
        assert (image.format, image.size, "progressive" in image.info) == ("JPEG", (240, 160), False)
        assert tuple(image.layer[0][1:3]) == sampling  # type: ignore[attr-defined]
    assert psnr_db(pixels(results[-1] or b""), LARGE) > 35


@on_every_device
def test_the_gpu_encodes_only_large_baseline_jpegs(device: torch.device, calls: list[tuple[int, ...]]) -> None:
    encoder = Encoder(EncodeConfig(gpu_from_pixels=FROM_PIXELS), device)
    results = encode(encoder, record(SMALL), record(LARGE), record(LARGE, "png"), record(LARGE, "webp"))
    assert calls == [LARGE.shape]
    assert [result.format for result in results] == ["JPEG", "JPEG", "PNG", "WEBP"]
    progressive = Encoder(EncodeConfig(gpu_from_pixels=FROM_PIXELS, progressive=True), device)
    (result,) = encode(progressive, record(LARGE))
    assert calls == [LARGE.shape]
    with Image.open(io.BytesIO(result.data)) as image:
        assert image.info["progressive"]


@on_every_device
def test_metadata_is_written_as_by_the_cpus_encoder(device: torch.device) -> None:
    metadata = inspect(oriented(6), 10_000_000).metadata
    (result,) = encode(Encoder(EncodeConfig(gpu_from_pixels=1), device), record(LARGE, metadata=metadata))
    (expected,) = encode(Encoder(EncodeConfig()), record(LARGE, metadata=metadata))
    assert psnr_db(pixels(result.data), pixels(expected.data)) > 35
    shown = []
    for encoded in (result, expected):
        with Image.open(io.BytesIO(encoded.data)) as image:
            shown.append((dict(image.getexif()), image.info.get("icc_profile")))
    assert shown[0] == shown[1]
    assert shown[0][0][0x0112] == 1
    assert (result.width, result.height, result.notes) == (expected.width, expected.height, expected.notes)


@on_every_device
def test_results_of_concurrent_threads_are_not_mixed_up(device: torch.device) -> None:
    encoder = GpuEncoder(device)
    pictures = [np.array(picture(120, 80, seed=seed)) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda one: encoder(one, 92, "4:2:0"), pictures))
    for one, result in zip(pictures, results, strict=True):
        assert psnr_db(pixels(result or b""), one) > 35


@on_every_device
def test_an_image_that_it_cannot_encode_is_left_to_the_cpu(device: torch.device) -> None:
    encoder = GpuEncoder(device)
    assert encoder(np.zeros((0, 0, 3), np.uint8), 92, "4:2:0") is None
    assert encoder(LARGE, 92, "4:2:0")


def test_without_a_usable_gpu_the_cpu_encodes_and_one_warning_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = Encoder(EncodeConfig(gpu_from_pixels=1), torch.device("cuda", 99))  # a device that no machine has
    with caplog.at_level(logging.WARNING):
        results = encode(encoder, record(LARGE), record(SMALL))
    assert [message.split(":")[0] for message in caplog.messages] == ["JPEGs are encoded on the CPU"]
    assert install_hint("gpu") in caplog.text
    expected = encode(Encoder(EncodeConfig()), record(LARGE), record(SMALL))
    assert [result.data for result in results] == [result.data for result in expected]


def test_the_cpu_encodes_by_default() -> None:
    assert encode_device(PipelineConfig()) is None
    on_cpu = PipelineConfig(generate=GenerateConfig(device="cpu"), encode=EncodeConfig(gpu_from_pixels=1))
    assert encode_device(on_cpu) is None


@pytest.mark.needs_cuda
def test_the_generators_gpu_encodes_on_request() -> None:
    config = PipelineConfig(generate=GenerateConfig(device="cuda:0"), encode=EncodeConfig(gpu_from_pixels=1))
    assert encode_device(config) == torch.device("cuda", 0)
