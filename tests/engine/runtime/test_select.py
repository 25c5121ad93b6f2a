from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from engine.config import BackendName, GenerateConfig, TrunkName
from engine.errors import BackendUnavailable, SetupError
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator
from engine.runtime.backends import inductor
from engine.runtime.backends.base import DEFAULT_KERNELS, KernelOptions, Trunk
from engine.runtime.backends.eager import eager_key
from engine.runtime.backends.inductor import package_key
from engine.runtime.cache import PackageCache
from engine.runtime.parity import MIN_PSNR_DB
from engine.runtime.select import (
    Choice,
    check_kernel_options,
    choices,
    choose_backend,
    kernel_options,
    ladder,
    measured_rates,
    profiles_for,
)
from engine.runtime.translator import BatchTranslator
from engine.system.device import has_bf16

CPU = torch.device("cpu")
TRUNKS: tuple[Trunk, ...] = get_args(Trunk)


def config(tmp_path: Path, **changes: object) -> GenerateConfig:
    return GenerateConfig(device="cpu", precision="fp32", cache=tmp_path, **changes)  # type: ignore[arg-type]


def names(generator: Generator, config: GenerateConfig, tmp_path: Path) -> list[str]:
    return [str(choice) for choice in choices(generator, config, CPU, PackageCache(tmp_path))]


def pretend_compiled(generator: Generator, tmp_path: Path, **notes: object) -> None:
    store, key = PackageCache(tmp_path), package_key(generator, "fp32", CPU)

    def write(path: Path) -> None:
        path.write_bytes(b"a package")

    store.get_or_build(key, write)
    store.note(key, **notes)


def test_nothing_is_compiled_before_a_run_starts(generator: Generator, tmp_path: Path) -> None:
    assert names(generator, config(tmp_path), tmp_path) == ["eager fp32"]


@pytest.mark.parametrize("backend", ["inductor", "eager"])
def test_a_refused_precision_is_followed_by_mixed_and_then_by_fp32(
    backend: str, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.select.fastest_precision", lambda _: "bf16")
    rungs = [str(choice) for choice in ladder(backend, GenerateConfig(device="cpu"), CPU, "")]
    assert rungs == [f"{backend} bf16", f"{backend} bf16-mixed", f"{backend} fp32"]


@pytest.mark.skipif(not has_bf16(), reason="this CPU computes bfloat16 in software")
def test_a_run_starts_in_the_fastest_precision_that_passes_the_parity_check(
    generator: Generator, tmp_path: Path
) -> None:
    backend, reason = choose_backend(generator, GenerateConfig(device="cpu", cache=tmp_path, expected_pixels=1))

    assert (backend.name, backend.precision) == ("eager", "bf16")
    assert "nothing is compiled yet" in reason
    assert PackageCache(tmp_path).notes(eager_key(generator, "bf16", CPU))["parity"]["psnr_db"] >= MIN_PSNR_DB


@pytest.mark.parametrize(("refused", "used"), [(["bf16"], "bf16-mixed"), (["bf16", "bf16-mixed"], "fp32")])
def test_a_precision_that_the_parity_check_refuses_is_replaced_by_the_next(
    refused: list[str], used: str, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored results are those of a generator that does not tolerate rounding."""
    monkeypatch.setattr("engine.runtime.select.fastest_precision", lambda _: "bf16")
    for precision in refused:
        PackageCache(tmp_path).note(eager_key(generator, precision, CPU), parity={"psnr_db": 31.0, "max_error": 90})

    backend, reason = choose_backend(generator, GenerateConfig(device="cpu", cache=tmp_path))

    assert (backend.name, backend.precision) == ("eager", used)
    assert all(f"eager {name} was refused (31.0 dB, largest error 90 of 255)" in reason for name in refused)


@pytest.mark.skipif(not has_bf16(), reason="this CPU computes bfloat16 in software")
def test_weights_initialised_like_the_reference_run_in_mixed_precision(tmp_path: Path) -> None:
    """The check refuses weights N(0, 0.02) without residual in bfloat16 and accepts mixed precision."""
    torch.manual_seed(1)
    module = ResnetGenerator(Architecture(ngf=32)).eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.weight.normal_(0, 0.02)
            assert layer.bias is not None
            layer.bias.zero_()
    generator = Generator(module, Card(name="initial"), "initial weights")

    backend, reason = choose_backend(generator, GenerateConfig(device="cpu", cache=tmp_path))

    assert (backend.name, backend.precision) == ("eager", "bf16-mixed")
    assert "eager bf16 was refused" in reason


def test_eager_on_request_is_the_reference(generator: Generator, tmp_path: Path) -> None:
    backend, _ = choose_backend(generator, GenerateConfig(backend="eager", device="cpu", cache=tmp_path))

    assert (backend.name, backend.precision) == ("eager", "fp32")


@pytest.mark.needs_compiler
def test_a_requested_backend_falls_back_to_eager_fp32(generator: Generator, tmp_path: Path) -> None:
    assert names(generator, config(tmp_path, backend="inductor"), tmp_path) == ["inductor fp32", "eager fp32"]


@pytest.mark.needs_compiler
def test_a_compiled_package_is_used_even_for_one_image(generator: Generator, tmp_path: Path) -> None:
    pretend_compiled(generator, tmp_path)

    first, *_ = choices(generator, config(tmp_path, expected_pixels=1), CPU, PackageCache(tmp_path))

    assert (first.name, first.why) == ("inductor", "already compiled for this machine")


@pytest.mark.needs_compiler
@pytest.mark.parametrize("faster", ["eager", "inductor"])
def test_the_backend_measured_faster_is_used(generator: Generator, tmp_path: Path, faster: str) -> None:
    pretend_compiled(generator, tmp_path, rates={"eager": 5.0, "inductor": 5.0} | {faster: 9.5})

    first, *_ = choices(generator, config(tmp_path), CPU, PackageCache(tmp_path))

    assert (first.name, first.why) == (faster, "measured fastest here, 9.5 images/s")


@pytest.mark.needs_compiler
def test_the_rate_of_a_backend_that_is_not_installed_is_ignored(generator: Generator, tmp_path: Path) -> None:
    pretend_compiled(generator, tmp_path, rates={"inductor": 5.0, "tensorrt": 900.0})

    assert measured_rates(generator, config(tmp_path), CPU, PackageCache(tmp_path)) == {"inductor": 5.0}


def test_engines_and_packages_are_tuned_for_the_batch_of_the_configuration() -> None:
    profiles = profiles_for(GenerateConfig(sides=(256, 512), tuned_batch=64))
    assert [(profile.batch, profile.height) for profile in profiles] == [(64, 256), (16, 512)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cuda_graph": True}, "--cuda-graph needs an NVIDIA GPU; leave it out here."),
        ({"trunk": "triton"}, "--trunk triton needs "),
    ],
)
def test_what_only_a_gpu_has_is_refused_on_a_cpu_before_the_run(
    changes: dict[str, object], sentence: str, generator: Generator, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=sentence):
        BatchTranslator(generator, config(tmp_path, **changes))


@pytest.mark.needs_triton
def test_the_trunk_in_triton_is_refused_in_other_types_than_fp16_and_for_other_networks() -> None:
    gpu, resnet = torch.device("cuda", 0), Architecture()
    wanted = GenerateConfig(trunk="triton", precision="fp32")
    for precision in ("fp32", "bf16", "bf16-mixed"):
        with pytest.raises(SetupError, match="use --precision fp16"):
            check_kernel_options(replace(wanted, precision=precision), gpu, resnet)
    check_kernel_options(replace(wanted, precision="fp16", cuda_graph=True), gpu, resnet)
    with pytest.raises(SetupError, match="needs a ResNet with residual blocks; leave it out for this model"):
        check_kernel_options(replace(wanted, precision="auto"), gpu, Architecture(network="unet", levels=5))


def test_the_last_resort_of_a_ladder_has_the_trunk_of_pytorch() -> None:
    gpu, resnet = torch.device("cuda", 0), Architecture()
    wanted = GenerateConfig(trunk="triton", cuda_graph=True, tuned_batch=64)
    graphs = KernelOptions("torch", 64 * 256 * 256)
    assert kernel_options(Choice("eager", "fp32"), wanted, gpu, resnet) == graphs
    assert kernel_options(Choice("inductor", "fp16-mixed"), wanted, gpu, resnet).trunk == "triton"
    assert kernel_options(Choice("inductor", "fp16"), GenerateConfig(), gpu, resnet) == DEFAULT_KERNELS


@pytest.mark.parametrize(
    ("choice", "trunk", "amx", "arch", "used"),
    [
        (Choice("inductor", "bf16"), "auto", False, Architecture(), "winograd"),
        (Choice("inductor", "bf16-mixed"), "auto", False, Architecture(), "winograd"),
        (Choice("inductor", "bf16"), "auto", True, Architecture(), "torch"),
        (Choice("inductor", "fp32"), "auto", False, Architecture(), "torch"),
        (Choice("eager", "bf16"), "auto", False, Architecture(), "torch"),
        (Choice("inductor", "bf16"), "auto", False, Architecture(padding="zero"), "torch"),
        (Choice("inductor", "bf16"), "auto", False, Architecture(network="unet", levels=5), "torch"),
        (Choice("inductor", "bf16"), "torch", False, Architecture(), "torch"),
        (Choice("inductor", "bf16"), "winograd", True, Architecture(), "winograd"),
        (Choice("inductor", "fp32"), "winograd", True, Architecture(), "winograd"),
        (Choice("eager", "fp32"), "winograd", False, Architecture(), "torch"),
    ],
)
def test_residual_blocks_have_fewer_multiplications_where_that_is_faster_or_asked_for(
    choice: Choice, trunk: TrunkName, amx: bool, arch: Architecture, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert kernel_options(choice, GenerateConfig(trunk=trunk), CPU, arch).trunk == used


@pytest.mark.parametrize(
    ("changes", "arch", "sentence"),
    [
        ({"backend": "eager"}, Architecture(), "--trunk winograd needs --backend inductor, got eager; leave one"),
        ({}, Architecture(padding="zero"), "--trunk winograd needs reflection padding; leave it out for this model"),
        ({}, Architecture(network="unet", levels=5), "--trunk winograd needs a ResNet; leave it"),
    ],
)
def test_fewer_multiplications_are_refused_where_they_cannot_be_used(
    changes: dict[str, BackendName], arch: Architecture, sentence: str
) -> None:
    wanted = GenerateConfig(trunk="winograd", **changes)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=sentence):
        check_kernel_options(wanted, CPU, arch)
    with pytest.raises(SetupError, match="--trunk winograd runs on a CPU"):
        check_kernel_options(wanted, torch.device("cuda", 0), arch)
    check_kernel_options(GenerateConfig(trunk="winograd"), CPU, Architecture())


def test_a_package_with_fewer_multiplications_has_a_key_of_its_own(generator: Generator) -> None:
    keys = [package_key(generator, "bf16", CPU, options=KernelOptions(trunk)) for trunk in TRUNKS[:2]]
    assert keys[0] == package_key(generator, "bf16", CPU)
    assert set(keys[1]) - set(keys[0]) == {"trunk", "trunk_code"}


@pytest.mark.needs_triton
def test_a_package_with_the_trunk_in_triton_has_a_key_of_its_own(generator: Generator) -> None:
    keys = [package_key(generator, "fp16", CPU, options=KernelOptions(trunk)) for trunk in TRUNKS[::2]]
    assert keys[0] == package_key(generator, "fp16", CPU)
    assert set(keys[1]) - set(keys[0]) == {"trunk", "trunk_code", "triton"}


def test_without_a_compiler_auto_uses_eager_with_a_warning(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with caplog.at_level(logging.WARNING):
        backend, reason = choose_backend(generator, config(tmp_path))

    assert backend.name == "eager"
    assert "install g++" in caplog.text
    assert "no C++ compiler" in reason


def test_a_requested_backend_that_is_unavailable_stops_the_run(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(SetupError, match="g\\+\\+"):
        choose_backend(generator, config(tmp_path, backend="inductor"))
    with pytest.raises(SetupError, match="NVIDIA GPU"):
        choose_backend(generator, config(tmp_path, backend="tensorrt"))


@pytest.mark.needs_compiler
def test_auto_uses_the_next_backend_when_compiling_fails(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise BackendUnavailable("Backend inductor could not compile: no space left.")

    monkeypatch.setattr(inductor._Compilation, "__call__", fail)

    with caplog.at_level(logging.WARNING):
        backend, reason = choose_backend(
            generator, config(tmp_path), [Choice("inductor", "fp32"), Choice("eager", "fp32", "the next one")]
        )

    assert backend.name == "eager"
    assert "no space left. Another backend is taken." in caplog.text
    assert "inductor fp32 could not be built" in reason
