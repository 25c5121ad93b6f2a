"""Recover from running out of memory, and stop when the GPU is lost; most backends here are stand-ins."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from engine.errors import StopRun
from engine.runtime.backends.aoti import PackageFailed
from engine.runtime.recovery import RecoveringBackend


class SmallCard:
    """Backend that runs out of memory for batches of more than `most` images."""

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


def test_a_batch_that_does_not_fit_is_halved_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    card = SmallCard(most=3)

    with caplog.at_level(logging.WARNING):
        translated = RecoveringBackend(card)(batch(16))

    assert torch.equal(translated, 255 - batch(16))
    assert [record.getMessage() for record in caplog.records] == [
        "Memory does not hold 16 images of 16x16 at once: going on with 8.",
        "Memory does not hold 8 images of 16x16 at once: going on with 4.",
        "Memory does not hold 4 images of 16x16 at once: going on with 2.",
    ]


def test_the_batch_size_that_fitted_is_used_for_later_batches() -> None:
    card = SmallCard(most=4)
    guarded = RecoveringBackend(card)
    guarded(batch(8))
    card.calls.clear()

    guarded(batch(8))

    assert card.calls == [4, 4]


def test_smaller_images_are_batched_again() -> None:
    card = SmallCard(most=4)
    guarded = RecoveringBackend(card)
    guarded(batch(8, side=32))
    card.most = 100
    card.calls.clear()

    guarded(batch(16, side=16))

    assert card.calls == [16]


def test_an_image_that_does_not_fit_alone_raises() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        RecoveringBackend(SmallCard(most=0))(batch(4))


def test_a_lost_gpu_stops_the_run_with_a_sentence_that_names_the_remedy() -> None:
    def lost(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA to enable…")

    with pytest.raises(StopRun, match=r"unspecified launch failure\).*same command again") as caught:
        RecoveringBackend(lost)(batch(1))
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_taken_for_a_lost_gpu() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with pytest.raises(RuntimeError, match="must match"):
        RecoveringBackend(broken)(batch(1))


@pytest.mark.needs_cuda
def test_recover_from_real_cuda_out_of_memory() -> None:
    free, _ = torch.cuda.mem_get_info(0)

    def hungry(pixels_NHWC: Tensor) -> Tensor:
        per_image = free // 3
        taken = torch.empty(per_image * len(pixels_NHWC), dtype=torch.uint8, device="cuda")
        return (255 - pixels_NHWC).add(0 * taken[0].cpu())

    assert torch.equal(RecoveringBackend(hungry)(batch(8)), 255 - batch(8))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("run_func_(...) API call failed at model_container_runner.cpp, line 145"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        PackageFailed("the compiled package failed on a batch of (4, 16, 16, 3)"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_every_form_of_running_out_of_memory_halves_the_batch(error: RuntimeError) -> None:
    calls: list[int] = []

    def backend(pixels_NHWC: Tensor) -> Tensor:
        calls.append(len(pixels_NHWC))
        if len(pixels_NHWC) > 2:
            raise error
        return 255 - pixels_NHWC

    assert torch.equal(RecoveringBackend(backend)(batch(4)), 255 - batch(4))
    assert calls == [4, 2, 2]


def test_a_batch_in_one_part_is_not_copied() -> None:
    result = batch(2)
    assert RecoveringBackend(lambda _: result)(batch(2)) is result
