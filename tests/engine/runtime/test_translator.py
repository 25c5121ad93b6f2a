"""Any size goes in and comes out, and neither padding nor company changes a picture's result."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.config import GenerateConfig
from engine.errors import StopRun
from engine.model.weights import Generator
from engine.runtime.translator import MIN_SIDE, BatchTranslator, RecoveringBackend, pad
from tests.images import picture

EAGER = GenerateConfig(backend="eager", device="cpu")


def pictures(count: int, height: int, width: int) -> Tensor:
    """Make uint8 [N, H, W, 3]."""
    return torch.stack([torch.from_numpy(np.array(picture(width, height, seed=i))) for i in range(count)])


@pytest.fixture(scope="module")
def translator(generator: Generator) -> BatchTranslator:
    return BatchTranslator(generator, EAGER)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (40, 1), (17, 23), (3, 200), (64, 48), (2, 15), (33, 16)]
)
def test_any_size_comes_out_as_it_went_in(height: int, width: int, translator: BatchTranslator) -> None:
    result = translator(pictures(2, height, width))
    assert (result.shape, result.dtype) == ((2, height, width, 3), torch.uint8)
    assert result.is_contiguous()


def test_the_result_is_the_modules_own(translator: BatchTranslator, generator: Generator) -> None:
    """Computed here by the textbook, with no code of the engine but the module."""
    x = pictures(1, 48, 64)
    with torch.no_grad():
        y = generator.module(x.permute(0, 3, 1, 2).float() / 127.5 - 1)
    expected = ((y + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    assert (translator(x).float() - expected).abs().max() <= 1


def test_a_size_the_network_cannot_take_is_mirrored_and_cropped(translator: BatchTranslator) -> None:
    x = pictures(1, 30, 41)
    mirrored = F.pad(x.permute(0, 3, 1, 2).float(), (0, 3, 0, 2), mode="reflect").to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(translator(x), translator(mirrored.contiguous())[:, :30, :41])


@pytest.mark.parametrize(("height", "width"), [(64, 48), (17, 23), (1, 40)])
def test_company_does_not_change_a_bit(height: int, width: int, translator: BatchTranslator) -> None:
    """What an interrupted run needs to give the very bytes of one that was not."""
    x = pictures(5, height, width)
    together = translator(x)
    assert torch.equal(together, torch.cat([translator(one_HWC[None]) for one_HWC in x]))
    assert torch.equal(together[3:], translator(x[3:]))
    assert torch.equal(together.flip(0), translator(x.flip(0)))


def test_running_it_leaves_its_input_alone(translator: BatchTranslator) -> None:
    x = pictures(2, 32, 32)
    before = x.clone()
    translator(x)
    assert torch.equal(x, before)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_padding_adds_the_least_and_keeps_the_picture(height: int, width: int) -> None:
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
    assert not small._fits(pad(x, 4))
    assert (small(x).int() - translator(x).int()).abs().max() <= 1


def test_it_says_what_it_runs_and_why(translator: BatchTranslator) -> None:
    assert translator.reason == "eager fp32 on cpu: as asked"


def test_results_in_bf16_stay_close(generator: Generator, translator: BatchTranslator, tmp_path: Path) -> None:
    half = BatchTranslator(generator, GenerateConfig(backend="eager", precision="bf16", device="cpu", cache=tmp_path))
    x = pictures(2, 64, 64)
    error = (half(x).double() - translator(x).double()).square().mean()
    assert float(10 * torch.log10(255**2 / error)) > 30


class SmallCard:
    """A backend whose memory holds `most` images at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls: list[int] = []

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        self.calls.append(len(pixels_NHWC))
        if len(pixels_NHWC) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return 255 - pixels_NHWC


def batch(count: int, side: int = 16) -> Tensor:
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, side, side, 3).clone()


def test_a_batch_that_does_not_fit_goes_in_halves_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    card = SmallCard(most=3)

    with caplog.at_level(logging.WARNING):
        translated = RecoveringBackend(card)(batch(16))

    assert torch.equal(translated, 255 - batch(16))
    assert [record.getMessage() for record in caplog.records] == [
        "The GPU's memory does not hold 16 images of 16x16 at once: going on with 8.",
        "The GPU's memory does not hold 8 images of 16x16 at once: going on with 4.",
        "The GPU's memory does not hold 4 images of 16x16 at once: going on with 2.",
    ]


def test_what_fitted_is_remembered() -> None:
    card = SmallCard(most=4)
    guarded = RecoveringBackend(card)
    guarded(batch(8))
    card.calls.clear()

    guarded(batch(8))

    assert card.calls == [4, 4]


def test_smaller_images_than_the_one_that_did_not_fit_go_together_again() -> None:
    card = SmallCard(most=4)
    guarded = RecoveringBackend(card)
    guarded(batch(8, side=32))
    card.most = 100
    card.calls.clear()

    guarded(batch(16, side=16))

    assert card.calls == [16]


def test_an_image_that_does_not_fit_alone_is_for_the_caller() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        RecoveringBackend(SmallCard(most=0))(batch(4))


def test_a_lost_gpu_ends_the_run_in_one_sentence_that_says_how_to_go_on() -> None:
    def lost(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA to enable…")

    with pytest.raises(StopRun, match=r"unspecified launch failure\).*same command again") as caught:
        RecoveringBackend(lost)(batch(1))
    assert "\n" not in str(caught.value)


def test_a_defect_of_ours_is_not_taken_for_a_lost_gpu() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with pytest.raises(RuntimeError, match="must match"):
        RecoveringBackend(broken)(batch(1))


@pytest.mark.needs_cuda
def test_on_a_gpu_a_real_lack_of_memory_is_survived() -> None:
    free, _ = torch.cuda.mem_get_info(0)

    def hungry(pixels_NHWC: Tensor) -> Tensor:
        per_image = free // 3
        taken = torch.empty(per_image * len(pixels_NHWC), dtype=torch.uint8, device="cuda")
        return (255 - pixels_NHWC).add(0 * taken[0].cpu())

    assert torch.equal(RecoveringBackend(hungry)(batch(8)), 255 - batch(8))
