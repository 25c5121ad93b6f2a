from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from engine.errors import StopRun
from engine.guard import Guarded


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
        translated = Guarded(card)(batch(16))

    assert torch.equal(translated, 255 - batch(16))
    assert [record.getMessage() for record in caplog.records] == [
        "The GPU's memory does not hold 16 images of 16x16 at once: going on with 8.",
        "The GPU's memory does not hold 8 images of 16x16 at once: going on with 4.",
        "The GPU's memory does not hold 4 images of 16x16 at once: going on with 2.",
    ]


def test_what_fitted_is_remembered() -> None:
    card = SmallCard(most=4)
    guarded = Guarded(card)
    guarded(batch(8))
    card.calls.clear()

    guarded(batch(8))

    assert card.calls == [4, 4]


def test_smaller_images_than_the_one_that_did_not_fit_go_together_again() -> None:
    card = SmallCard(most=4)
    guarded = Guarded(card)
    guarded(batch(8, side=32))
    card.most = 100
    card.calls.clear()

    guarded(batch(16, side=16))

    assert card.calls == [16]


def test_an_image_that_does_not_fit_alone_is_for_the_caller() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Guarded(SmallCard(most=0))(batch(4))


def test_a_lost_gpu_ends_the_run_in_one_sentence_that_says_how_to_go_on() -> None:
    def lost(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA to enable…")

    with pytest.raises(StopRun, match=r"unspecified launch failure\).*same command again") as caught:
        Guarded(lost)(batch(1))
    assert "\n" not in str(caught.value)


def test_a_defect_of_ours_is_not_taken_for_a_lost_gpu() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with pytest.raises(RuntimeError, match="must match"):
        Guarded(broken)(batch(1))


@pytest.mark.needs_cuda
def test_on_a_gpu_a_real_lack_of_memory_is_survived() -> None:
    free, _ = torch.cuda.mem_get_info(0)

    def hungry(pixels_NHWC: Tensor) -> Tensor:
        per_image = free // 3
        taken = torch.empty(per_image * len(pixels_NHWC), dtype=torch.uint8, device="cuda")
        return (255 - pixels_NHWC).add(0 * taken[0].cpu())

    assert torch.equal(Guarded(hungry)(batch(8)), 255 - batch(8))
