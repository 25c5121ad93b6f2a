"""Translate images of any size; neither padding nor other images of the batch change a result."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.config import GenerateConfig, PrecisionName
from engine.errors import SetupError, SkipImage
from engine.model.card import Card
from engine.model.weights import Generator
from engine.runtime.recovery import RecoveringBackend
from engine.runtime.translator import MIN_SIDE, BatchTranslator, pad
from tests.engine.model.variants import VARIANTS, randomised
from tests.images import picture, psnr_db

EAGER = GenerateConfig(backend="eager", device="cpu")


def pictures(count: int, height: int, width: int) -> Tensor:
    """Return random images, uint8 [N, H, W, 3]."""
    return torch.stack([torch.from_numpy(np.array(picture(width, height, seed=i))) for i in range(count)])


@pytest.fixture(scope="module")
def translator(generator: Generator) -> BatchTranslator:
    return BatchTranslator(generator, EAGER)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (40, 1), (17, 23), (3, 200), (64, 48), (2, 15), (33, 16)]
)
def test_results_have_the_size_of_their_images(height: int, width: int, translator: BatchTranslator) -> None:
    result = translator(pictures(2, height, width))
    assert (result.shape, result.dtype) == ((2, height, width, 3), torch.uint8)
    assert result.is_contiguous()


def test_the_result_equals_the_modules_output(translator: BatchTranslator, generator: Generator) -> None:
    """The expected values are computed here from the module's output, without other code of the engine."""
    x = pictures(1, 48, 64)
    with torch.no_grad():
        y = generator.module(x.permute(0, 3, 1, 2).float() / 127.5 - 1)
    expected = ((y + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert (translator(x).float() - expected).abs().max() <= 1


def test_other_sizes_are_padded_by_reflection_and_cropped(translator: BatchTranslator) -> None:
    x = pictures(1, 30, 41)
    mirrored = F.pad(x.permute(0, 3, 1, 2).float(), (0, 3, 0, 2), mode="reflect").to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(translator(x), translator(mirrored.contiguous())[:, :30, :41])


@pytest.mark.parametrize(("height", "width"), [(64, 48), (17, 23), (1, 40)])
def test_other_images_of_a_batch_do_not_change_a_bit(height: int, width: int, translator: BatchTranslator) -> None:
    """An interrupted run, which batches differently, must write the same bytes as an uninterrupted one."""
    x = pictures(5, height, width)
    together = translator(x)
    assert torch.equal(together, torch.cat([translator(one_HWC[None]) for one_HWC in x]))
    assert torch.equal(together[3:], translator(x[3:]))
    assert torch.equal(together.flip(0), translator(x.flip(0)))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_is_refused_instead_of_waiting_for_ever(translator: BatchTranslator) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        translator(pictures(1, 64, 64))
        child = os.fork()
        if child == 0:
            try:
                translator(pictures(1, 64, 64))
            except SetupError:
                os.execv("/bin/true", ["true"])
            finally:
                os.execv("/bin/false", ["false"])
    finally:
        torch.set_num_threads(threads)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the forked process waits")
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_input_is_not_modified(translator: BatchTranslator) -> None:
    x = pictures(2, 32, 32)
    before = x.clone()
    translator(x)
    assert torch.equal(x, before)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_padding_is_minimal_and_keeps_the_image(height: int, width: int) -> None:
    x = pictures(1, height, width)
    padded = pad(x, 4)
    for side, old in ((padded.shape[1], height), (padded.shape[2], width)):
        assert side % 4 == 0
        assert side == max(MIN_SIDE, old + -old % 4)
    assert torch.equal(padded[:, :height, :width], x)
    assert {tuple(p) for p in padded[0].flatten(0, 1).tolist()} <= {tuple(p) for p in x[0].flatten(0, 1).tolist()}


def test_a_size_that_fits_is_not_copied() -> None:
    x = pictures(1, 32, 64)
    assert pad(x, 4) is x


def test_a_small_memory_budget_gives_the_same_result_in_bands(
    generator: Generator, translator: BatchTranslator
) -> None:
    x = pictures(1, 700, 501)
    small = BatchTranslator(generator, GenerateConfig(backend="eager", device="cpu", memory_bytes=36_000_000))
    assert small._needed_bytes(pad(x, 4)) > small._budget_bytes
    assert (small(x).int() - translator(x).int()).abs().max() <= 1


def translator_of(name: str, **options: Any) -> BatchTranslator:
    module = randomised(VARIANTS[name])
    generator = Generator(module, Card(name=name, architecture=module.arch), name)
    return BatchTranslator(generator, replace(EAGER, **options))


def test_images_for_a_u_net_are_padded_to_a_multiple_of_its_stride() -> None:
    unet = translator_of("unet")
    for height, width in ((1, 1), (20, 45), (64, 96)):
        x = pictures(2, height, width)
        padded = pad(x, 32)
        assert all(
            side % 32 == 0 and side - old < 32 for side, old in zip(padded.shape[1:3], (height, width), strict=True)
        )
        assert torch.equal(unet(x), unet(padded)[:, :height, :width])
    mirrored = np.pad(x[0].numpy(), ((0, 192), (0, 160), (0, 0)), mode="reflect")
    assert np.array_equal(pad(x[:1], 256)[0].numpy(), mirrored), (
        "reflected repeatedly where the stride exceeds the image"
    )


def test_a_photo_too_large_for_a_u_net_is_skipped_with_sizes_in_the_reason() -> None:
    unet = translator_of("unet", memory_bytes=150_000_000)
    with pytest.raises(
        SkipImage, match=r"of 1024x1024 pixels .* takes about \d+ MB, and 150 MB are allowed; allow more"
    ):
        unet(torch.zeros(1, 1000, 1000, 3, dtype=torch.uint8))
    batch = pictures(4, 200, 224)
    assert unet._needed_bytes(pad(batch, 32)) > 150_000_000
    assert torch.equal(unet(batch)[3:], unet(batch[3:])), "a batch that is too large is translated image by image"


def test_a_u_net_that_runs_out_of_memory_is_not_translated_in_bands() -> None:
    unet = translator_of("unet")
    assert unet.backend.name == "eager"

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("not enough memory: you tried to allocate 1 bytes")

    unet._run = RecoveringBackend(fail)
    with pytest.raises(SkipImage, match="a U-Net translates whole images only"):
        unet(pictures(1, 64, 48))


@pytest.mark.parametrize("name", ["nearest, batch", "blur", "gray", "alpha", "no norm, replicate"])
def test_bands_of_other_generators_equal_the_whole_image(name: str) -> None:
    x = pictures(1, 700, 501)
    in_bands = translator_of(name, memory_bytes=40_000_000)
    assert in_bands._needed_bytes(pad(x, 4)) > in_bands._budget_bytes
    assert (in_bands(x).int() - translator_of(name)(x).int()).abs().max() <= 1


def test_a_dropped_alpha_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        translator_of("gray")
        assert caplog.text == ""
        translator_of("alpha")
    assert "alpha takes alpha as opaque, and the alpha that it makes is dropped." in caplog.text


def test_the_description_names_backend_precision_and_reason(translator: BatchTranslator) -> None:
    assert translator.reason == "eager fp32 on cpu: as requested"


def test_results_in_bf16_stay_close(generator: Generator, translator: BatchTranslator, tmp_path: Path) -> None:
    half = BatchTranslator(generator, GenerateConfig(backend="eager", precision="bf16", device="cpu", cache=tmp_path))
    x = pictures(2, 64, 64)
    error = (half(x).double() - translator(x).double()).square().mean()
    assert float(10 * torch.log10(255**2 / error)) > 30


def test_an_image_is_translated_in_bands_when_a_package_runs_out_of_memory(
    generator: Generator, translator: BatchTranslator, caplog: pytest.LogCaptureFixture
) -> None:
    """A compiled package reports running out of memory as a plain RuntimeError."""
    x = pictures(1, 64, 48)
    failing = BatchTranslator(generator, EAGER)

    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("run_func_(...) API call failed at model_container_runner.cpp, line 145")

    failing._run = RecoveringBackend(fail)
    with caplog.at_level(logging.WARNING):
        assert (failing(x).int() - translator(x).int()).abs().max() <= 1
    assert "going on in bands" in caplog.text


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_bands_are_rounded_like_the_whole_image(precision: PrecisionName, generator: Generator, tmp_path: Path) -> None:
    config = GenerateConfig(backend="eager", precision=precision, device="cpu", cache=tmp_path)
    x = pictures(1, 700, 501)
    in_bands = BatchTranslator(generator, replace(config, memory_bytes=45_000_000))
    assert in_bands._needed_bytes(pad(x, 4)) > in_bands._budget_bytes
    assert psnr_db(in_bands(x).numpy(), BatchTranslator(generator, EAGER)(x).numpy()) > 40


def test_threads_share_one_budget_for_large_images(generator: Generator) -> None:
    """With three batches in flight, those that need more than a third of the budget run one at a time."""
    translator = BatchTranslator(generator, replace(EAGER, batches_in_flight=3, memory_bytes=300_000_000))
    small, large = pictures(1, 16, 16), pictures(1, 1024, 1024)
    assert translator._needed_bytes(small) > 100_000_000, "fixed costs alone exceed a third"
    inside, most = 0, 0
    lock = threading.Lock()

    def count(pixels_NHWC: Tensor) -> Tensor:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.01)
        with lock:
            inside -= 1
        return pixels_NHWC

    translator._run = RecoveringBackend(count)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(translator, [large] * 9))
    assert most == 1
