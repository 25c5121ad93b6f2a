from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import GenerateConfig
from engine.model.weights import Generator
from engine.runtime.backends.base import ParityCase
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import package_key
from engine.runtime.cache import PackageCache
from engine.runtime.parity import MIN_PSNR_DB, ParityResult, check, compare, parity_images
from engine.runtime.select import choose_backend

CPU = torch.device("cpu")


def put(store: PackageCache, key: dict[str, str], data: bytes) -> None:
    def write(path: Path) -> None:
        path.write_bytes(data)

    store.get_or_build(key, write)


@dataclass
class FaultyBackend:
    """Backend that runs the module and then adds a fault."""

    generator: Generator
    store: PackageCache
    fault: str
    runs: int = 0
    name: str = "inductor"
    precision: str = "fp32"
    parity_cases: list[ParityCase] = field(default_factory=list)

    def __post_init__(self) -> None:
        key = {"weights": self.generator.sha256, "fault": self.fault}
        put(self.store, key, b"engine")
        self.parity_cases = [ParityCase(key, self)]

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        self.runs += 1
        translated = EagerBackend(self.generator, "fp32", CPU)(pixels_NHWC).clone()
        if self.fault == "one pixel":
            translated[0, 0, 0, 0] = 255 if translated[0, 0, 0, 0] < 128 else 0
        elif self.fault == "a shifted row":
            translated = translated.roll(1, dims=1)
        elif self.fault == "noise":
            noise = torch.randint(-12, 13, translated.shape, generator=torch.Generator().manual_seed(1))
            translated = (translated + noise).clamp(0, 255).to(torch.uint8)
        return translated


def test_the_check_images_are_deterministic_and_have_several_shapes() -> None:
    once, again = parity_images(), parity_images()

    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert len({images.shape for images in once}) == 3
    assert all(images.dtype == torch.uint8 and images.max() > 200 and images.min() < 50 for images in once)


def test_the_check_images_of_a_u_net_are_multiples_of_its_stride() -> None:
    shapes = [tuple(images.shape) for images in parity_images(256)]
    assert shapes == [(4, 256, 256, 3), (4, 256, 512, 3)]
    assert all(side % 32 == 0 for images in parity_images(32) for side in images.shape[1:3])


def test_the_module_itself_passes_within_rounding(generator: Generator) -> None:
    parity = compare(generator, EagerBackend(generator, "fp32", CPU))

    assert parity.passed
    assert parity.max_error <= 1


@pytest.mark.parametrize("fault", ["one pixel", "a shifted row", "noise"])
def test_a_damaged_engine_is_refused(generator: Generator, tmp_path: Path, fault: str) -> None:
    parity = check(generator, FaultyBackend(generator, PackageCache(tmp_path), fault), PackageCache(tmp_path))

    assert not parity.passed


def test_a_generator_whose_weights_overflow_half_precision_is_refused(generator: Generator) -> None:
    """Sums above 65504 are infinite in fp16, and their difference in the InstanceNorm that follows is NaN."""
    module = EagerBackend(generator, "fp16", CPU)
    with torch.no_grad():
        weight = module._module.body[0].weight
        assert isinstance(weight, torch.Tensor)
        weight.fill_(6e4)

    assert not compare(generator, module).passed


def test_a_psnr_that_is_not_a_number_does_not_pass() -> None:
    assert not ParityResult(psnr_db=math.nan, max_error=0).passed
    assert ParityResult(psnr_db=MIN_PSNR_DB, max_error=0).passed


def test_the_check_runs_once_and_its_result_is_kept_with_the_package(generator: Generator, tmp_path: Path) -> None:
    store = PackageCache(tmp_path)
    engine = FaultyBackend(generator, store, "none")

    first = check(generator, engine, store)
    runs = engine.runs
    again = check(generator, engine, PackageCache(tmp_path))

    assert first == again
    assert engine.runs == runs == len(parity_images())


@pytest.mark.needs_compiler
def test_a_refused_engine_is_replaced_by_the_next_backend_with_a_warning(
    generator: Generator, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The package was compiled from other weights than those of its key, which stands for a compiler's defect."""
    other = Generator(type(generator.module)(generator.module.arch).eval(), generator.card, "other weights")
    store = PackageCache(own_cache)
    wrong = store.get(package_key(generator, "fp32", CPU))
    assert wrong is not None
    put(store, package_key(other, "fp32", CPU), wrong.read_bytes())

    with caplog.at_level(logging.WARNING):
        backend, reason = choose_backend(other, GenerateConfig(device="cpu", precision="fp32", cache=own_cache))

    assert backend.name == "eager"
    assert "does not agree with the fp32 module" in caplog.text
    assert "was refused" in reason
