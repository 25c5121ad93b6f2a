from __future__ import annotations

import pytest
import torch

from engine.errors import SetupError
from engine.system.device import choose_device, cuda_obstacle, explain_cuda_failure, fastest_precision


@pytest.mark.parametrize("name", ["tpu", "mps", "cuda:x", ""])
def test_an_unsupported_device_is_refused(name: str) -> None:
    with pytest.raises(SetupError) as caught:
        choose_device(name)

    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no GPU")
def test_without_a_gpu_cuda_is_refused_with_the_reason_and_auto_is_the_cpu() -> None:
    with pytest.raises(SetupError, match=r"^--device cuda: .*(driver|CUDA).*or use --device cpu\.$"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


@pytest.mark.needs_cuda
def test_a_gpu_is_returned_with_its_index() -> None:
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda", torch.cuda.current_device())
    with pytest.raises(SetupError, match="counted from 0"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("The NVIDIA driver on your system is too old (found version 12040). Please update", "CUDA up to 12.4"),
        ("Found no NVIDIA driver on your system. Please check", "no NVIDIA driver"),
        ("No CUDA GPUs are available", "CUDA_VISIBLE_DEVICES"),
        ("CUDA unknown error - this may be due to\nan incorrectly set up environment", "CUDA unknown error"),
        ("", "no reason given"),
    ],
)
def test_the_reason_why_a_gpu_does_not_start_has_a_remedy(error: str, said: str) -> None:
    told = explain_cuda_failure(error, "13.0")

    assert said in told
    assert "\n" not in told
    assert not told.endswith(".")


def test_there_is_an_obstacle_exactly_where_cuda_is_unavailable() -> None:
    assert (cuda_obstacle() is None) == torch.cuda.is_available()


def test_the_fastest_precision_depends_on_the_device() -> None:
    assert fastest_precision(torch.device("cuda", 0)) == "fp16"
    assert fastest_precision(torch.device("cpu")) in ("bf16", "fp32")
