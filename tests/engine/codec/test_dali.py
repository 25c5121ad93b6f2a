"""Decode with DALI: with its operators for the GPU where there is one, otherwise with those for the CPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.codec import png
from engine.codec.colour import adobe_rgb_icc
from engine.codec.dali import GpuDecoder, Jpeg
from engine.codec.decode import Decoder, check_jpeg, jpeg_device
from engine.codec.header import inspect
from engine.config import DecodeConfig, GenerateConfig, PipelineConfig
from engine.options import Detail, Options, Size
from engine.pipeline import Pipeline
from engine.records import DecodedImage, Failed, Inspected, Record
from engine.testing import MemorySink, MemorySource
from tests.engine.codec.test_decode import DAMAGE, FORMATS, array
from tests.images import encoded, oriented, photo, picture, pixels, psnr_db, zeroed

CPU = torch.device("cpu")
DEVICES = [pytest.param(CPU, id="cpu"), pytest.param(torch.device("cuda", 0), id="cuda", marks=pytest.mark.needs_cuda)]

on_every_device = pytest.mark.parametrize("device", DEVICES)


def chunk_of(images: list[bytes], size: str = "native", detail: Detail = "none") -> list[Record[Inspected] | Failed]:
    options = Options(size=Size.parse(size), detail=detail)
    records = [Record(key=str(i), payload=data, options=options) for i, data in enumerate(images)]
    return [record.attempt("inspect", lambda r: inspect(r.payload, 10_000_000)) for record in records]


def both_ways(
    device: torch.device, images: list[bytes], size: str = "native", detail: Detail = "none"
) -> list[tuple[DecodedImage | str, DecodedImage | str]]:
    """Decode a chunk with DALI on `device` and without it; a failed image is represented by its reason."""
    chunk = chunk_of(images, size, detail)
    config = DecodeConfig(workers=1, chunk_images=len(images))
    answers = [Decoder(config, jpegs_on)(chunk) for jpegs_on in (device, None)]
    assert [[answer.key for answer in way] for way in answers] == [[item.key for item in chunk]] * 2
    one, other = ([a.reason if isinstance(a, Failed) else a.payload for a in way] for way in answers)
    return list(zip(one, other, strict=True))


def on_host(result: DecodedImage | str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    assert isinstance(result, DecodedImage), result
    return array(replace(result, pixels_HWC=result.pixels_HWC.cpu()))


def alike(result: DecodedImage | str, expected: DecodedImage | str) -> bool:
    """On a CPU both decoders are the same and differ by rounding; a GPU's decoder has its own arithmetic."""
    a, b = on_host(result), on_host(expected)
    assert isinstance(result, DecodedImage)
    on_gpu = result.pixels_HWC.device.type == "cuda"
    return a.shape == b.shape and (psnr_db(a, b) > 35 if on_gpu else bool(np.abs(a - b).max() <= 2))


@on_every_device
def test_pixels_have_the_requested_size_and_memory_of_their_own(device: torch.device) -> None:
    """Later calls must not overwrite the results of earlier ones."""
    decode = GpuDecoder(device, 4)
    first = decode([Jpeg(photo(200, 150, seed=1), 64, 80), Jpeg(photo(31, 33, seed=2), 33, 31)])
    kept = [None if one is None else one.clone() for one in first]
    for seed in range(6):
        decode([Jpeg(photo(200, 150, seed=seed), 64, 80)] * 4)
    for one, before in zip(first, kept, strict=True):
        assert one is not None
        assert before is not None
        assert torch.equal(one, before)
        assert (one.dtype, one.device) == (torch.uint8, device)
    assert [tuple(one.shape) for one in first if one is not None] == [(64, 80, 3), (33, 31, 3)]


@on_every_device
def test_one_bad_image_fails_alone_and_the_decoder_goes_on(device: torch.device) -> None:
    decode = GpuDecoder(device, 4)
    good = Jpeg(photo(60, 40), 40, 60)
    bad = Jpeg(photo(200, 150)[:900], 150, 200)
    for _ in range(2):
        results = decode([good, bad, good])
        assert [result is None for result in results] == [False, True, False]
    (alone,) = decode([good])
    assert alone is not None
    assert results[0] is not None
    assert torch.equal(alone, results[0])


@on_every_device
def test_results_of_concurrent_threads_are_not_mixed_up(device: torch.device) -> None:
    decode = GpuDecoder(device, 2)
    images = [photo(60, 40, seed=seed) for seed in range(24)]

    def one(data: bytes) -> Tensor:
        (result, _) = decode([Jpeg(data, 40, 60), Jpeg(images[0], 20, 30)])
        assert result is not None
        return result.cpu()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(one, images))
    for data, result in zip(images, results, strict=True):
        assert psnr_db(result.numpy(), pixels(data)) > 35


def test_without_a_usable_gpu_the_cpu_decodes_and_one_warning_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    images = [photo(60, 40, seed=1), photo(60, 40, seed=2)]
    config = DecodeConfig(workers=1)
    decoder = Decoder(config, torch.device("cuda", 99))  # a device that no machine has
    with caplog.at_level(logging.WARNING):
        answers = [decoder(chunk_of(images)) for _ in range(3)]
    assert len(caplog.records) == 1
    assert "JPEGs are decoded on the CPU" in caplog.text
    for answer in answers:
        for result, data in zip(answer, images, strict=True):
            assert isinstance(result, Record)
            assert np.array_equal(array(result.payload), pixels(data))


@on_every_device
def test_dali_decodes_only_the_baseline_jpegs_of_a_mixed_chunk(device: torch.device) -> None:
    results = both_ways(device, [make() for make in FORMATS.values()])
    assert all(alike(result, expected) for result, expected in results)
    if device.type == "cuda":
        there = {
            name
            for name, (result, _) in zip(FORMATS, results, strict=True)
            if isinstance(result, DecodedImage) and result.pixels_HWC.device == device
        }
        assert (
            {"JPEG", "JPEG 4:4:4", "JPEG gray"} <= there <= {"JPEG", "JPEG 4:4:4", "JPEG gray", "JPEG that stores RGB"}
        )


@on_every_device
def test_dali_gets_only_jpegs_that_the_hardware_decodes(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requested size is that of the stored image: width and height are swapped for a photo on its side."""
    asked: list[Jpeg] = []
    decode = GpuDecoder.__call__

    def note(self: GpuDecoder, jpegs: list[Jpeg]) -> list[Tensor | None]:
        asked.extend(jpegs)
        return decode(self, jpegs)

    monkeypatch.setattr(GpuDecoder, "__call__", note)
    images = [
        photo(),
        photo(progressive=True),
        photo(format="PNG"),
        oriented(6),
        b"words",
        encoded(picture().convert("L")),
    ]
    results = both_ways(device, images, size="20")
    assert [(jpeg.data, jpeg.height, jpeg.width) for jpeg in asked] == [
        (images[0], 20, 28),
        (images[3], 20, 28),
        (images[5], 20, 28),
    ]
    shown = [result if isinstance(result, str) else on_host(result).shape for result, _ in results]
    assert shown[3] == (28, 20, 3)
    assert all(
        result == expected if isinstance(result, str) else alike(result, expected) for result, expected in results
    )


@on_every_device
@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_bad_image_fails_alone_for_the_same_reason(name: str, device: torch.device) -> None:
    before, bad, after = both_ways(device, [photo(seed=1), DAMAGE[name](), photo(seed=2)])
    assert alike(*before)
    assert alike(*after)
    assert isinstance(bad[0], str)
    assert bad[0] == bad[1]


@on_every_device
def test_turned_photos_are_not_overwritten_by_the_next_chunk(device: torch.device) -> None:
    """Turning reads the decoder's memory, which must not be reused before it has finished."""
    decoder = Decoder(DecodeConfig(workers=1, chunk_images=8), device)
    chunk = chunk_of([oriented(6), oriented(3), oriented(2)] * 2)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: decoder(chunk), range(16)))
    first = [on_host(result.payload) for result in decoder(chunk) if isinstance(result, Record)]
    assert len(first) == len(chunk)
    for answer in answers:
        for result, expected in zip(answer, first, strict=True):
            assert isinstance(result, Record)
            assert np.array_equal(on_host(result.payload), expected)


@on_every_device
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_and_resized(orientation: int, device: torch.device) -> None:
    ((result, expected),) = both_ways(device, [oriented(orientation, quality=95, subsampling=0)], size="40x30")
    assert alike(result, expected)


@on_every_device
def test_colour_profiles_are_applied_and_metadata_is_the_same(device: torch.device) -> None:
    ((result, expected),) = both_ways(device, [photo(icc_profile=adobe_rgb_icc())], size="32")
    assert (
        psnr_db(on_host(result), on_host(expected)) > 35
    )  # outside of sRGB's gamut one level of difference becomes several
    assert isinstance(result, DecodedImage)
    assert isinstance(expected, DecodedImage)
    assert (result.notes, result.icc, result.metadata) == (expected.notes, expected.icc, expected.metadata)


@on_every_device
def test_with_detail_the_full_size_photo_is_in_host_memory(device: torch.device) -> None:
    ((result, expected),) = both_ways(device, [photo(200, 150)], size="32", detail="plain")
    assert isinstance(result, DecodedImage)
    assert isinstance(expected, DecodedImage)
    assert result.full_HWC is not None
    assert expected.full_HWC is not None
    assert torch.equal(result.full_HWC, expected.full_HWC)


DEVICE_OF: dict[str, Callable[[], PipelineConfig]] = {
    "the generator is on the CPU": lambda: PipelineConfig(generate=GenerateConfig(device="cpu")),
    "switched off": lambda: PipelineConfig(decode=DecodeConfig(jpegs="cpu")),
}


@pytest.mark.parametrize("why", list(DEVICE_OF))
def test_the_cpu_decodes_if(why: str) -> None:
    assert jpeg_device(DEVICE_OF[why]()) is None


@pytest.mark.needs_cuda
def test_the_gpu_decodes_if_the_generator_runs_on_it() -> None:
    assert jpeg_device(PipelineConfig(generate=GenerateConfig(device="cuda:0"))) == torch.device("cuda", 0)


@pytest.mark.needs_cuda
def test_a_pipeline_passes_decoded_images_on_the_gpu_to_the_generator() -> None:
    """Uses several shapes, a bad image and a PNG among the JPEGs; results equal those of the CPU's decoder."""
    images = [(f"{i}.jpg", photo(64 + 4 * (i % 3), 48, seed=i)) for i in range(40)]
    images[7] = ("7.jpg", photo(64, 48)[:300])
    images[9] = ("9.png", photo(64, 48, format="PNG"))
    seen: set[str] = set()

    def negative(pixels_NHWC: Tensor) -> Tensor:
        seen.add(pixels_NHWC.device.type)
        return 255 - pixels_NHWC

    results = {}
    ways: tuple[Literal["auto", "cpu"], ...] = ("auto", "cpu")
    for jpegs in ways:
        config = PipelineConfig(
            options=Options(size=Size.parse("native"), format="png"),
            decode=DecodeConfig(jpegs=jpegs),
            generate=GenerateConfig(device="cuda:0", batches_in_flight=3),
        )
        sink = MemorySink()
        Pipeline(MemorySource(images, config.options), sink, {"": negative}, config).run()
        assert list(sink.failures) == ["7.jpg"]
        results[jpegs] = sink.results
    assert "cuda" in seen
    assert results["auto"].keys() == results["cpu"].keys()
    for key, encoded_result in results["auto"].items():
        assert psnr_db(pixels(encoded_result.data), pixels(results["cpu"][key].data)) > 35


def test_damage_is_searched_for_while_the_gpu_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses intact and damaged JPEGs and a PNG; the GPU's stand-in waits until all other work of the chunk is done."""
    others_done = threading.Event()
    left = {"jpeg", "png"}

    def reported(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def reporting(*arguments: object) -> object:
            try:
                return work(*arguments)
            finally:
                left.discard(name)
                if not left:
                    others_done.set()

        return reporting

    def gpu(jpegs: list[Jpeg]) -> list[Tensor | None]:
        assert others_done.wait(30), "the CPU waited for the GPU"
        return [torch.full((jpeg.height, jpeg.width, 3), 7, dtype=torch.uint8) for jpeg in jpegs]

    decoder = Decoder(DecodeConfig(workers=1, chunk_images=3), CPU)
    monkeypatch.setattr(decoder, "_gpu", gpu)
    monkeypatch.setattr("engine.codec.decode.check_jpeg", reported("jpeg", check_jpeg))
    monkeypatch.setattr("engine.codec.decode.png.check", reported("png", png.check))
    damaged = zeroed(encoded(picture(400, 300), quality=95), 0.4, 1500)
    intact, refused, other = decoder(chunk_of([photo(64, 48), damaged, encoded(picture(), "PNG")]))
    assert isinstance(intact, Record)
    assert (intact.payload.pixels_HWC == 7).all()
    assert isinstance(refused, Failed)
    assert "damaged" in refused.reason
    assert isinstance(other, Record)
