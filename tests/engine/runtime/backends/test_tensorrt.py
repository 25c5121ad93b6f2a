from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import BackendUnavailable
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator, build_generator
from engine.model.weights import Generator, save_generator
from engine.runtime.backends.tensorrt import (
    Float32Norm,
    Profile,
    TensorRTBackend,
    engine_key,
    export,
    installed,
    keep_norms_in_float32,
    nearest,
    runtime,
)
from engine.runtime.cache import PackageCache
from engine.runtime.parity import compare
from tests.engine.model.variants import VARIANTS

CPU = torch.device("cpu")

# All operations that the generators export to. The test that builds real engines shows that each converts; this list
# reveals a new one where that test cannot run.
CONVERTIBLE = {
    "aten.pad.default",
    "aten.conv2d.default",
    "aten.conv_transpose2d.input",
    "aten.instance_norm.default",
    "aten.relu_.default",
    "aten.relu.default",
    "aten.leaky_relu.default",
    "aten.cat.default",
    "aten.tanh.default",
    "aten.add.Tensor",
    "aten.upsample_nearest2d.vec",
    "aten.to.dtype",
    "aten._assert_tensor_metadata.default",  # an assertion of the exporter, which conversion drops
    "aten.sym_size.int",
}


KINDS = {
    "plain": Architecture(blocks=1, ngf=4),
    "affine": Architecture(blocks=1, ngf=4, affine=True),
    "running statistics": Architecture(blocks=1, ngf=4, affine=True, track_running_stats=True),
    "resize": Architecture(blocks=1, ngf=4, upsample="resize"),
    "residual": Architecture(blocks=1, ngf=4, learn_residual=True),
}


OTHERS = {name: VARIANTS[name] for name in ("blur", "no norm, replicate", "unet, batch")}


@pytest.mark.parametrize("arch", (KINDS | OTHERS).values(), ids=(KINDS | OTHERS).keys())
def test_every_kind_of_generator_exports_to_operations_that_convert(arch: Architecture) -> None:
    program = export(build_generator(arch).eval(), torch.float16, Profile(), CPU)

    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {call for call in calls if call.startswith("aten.")} <= CONVERTIBLE


def test_the_exported_program_takes_any_batch_and_sides_of_its_profile() -> None:
    module = ResnetGenerator(Architecture(blocks=1, ngf=4)).eval()
    program = export(module, torch.float32, Profile(batch=4, height=64, width=64), CPU).module()

    for shape in ((1, 3, 16, 16), (4, 3, 128, 128), (3, 3, 64, 100)):
        images = torch.rand(shape) * 2 - 1
        torch.testing.assert_close(program(images), module(images))


def test_a_program_of_a_u_net_takes_multiples_of_its_stride() -> None:
    module = build_generator(VARIANTS["unet, batch"]).eval()
    profile = Profile(batch=2, height=64, width=64)
    assert profile.shapes(module.arch) == ((1, 3, 32, 32), (2, 3, 64, 64), (2, 3, 128, 128))
    program = export(module, torch.float32, profile, CPU).module()

    for shape in ((1, 3, 64, 96), (2, 3, 128, 64)):  # PyTorch's own run of the program refuses an innermost side of 1
        images = torch.rand(shape) * 2 - 1
        torch.testing.assert_close(program(images), module(images))


def test_half_precision_with_norms_in_float32_agrees_with_the_module() -> None:
    """TensorRT gets this typed module; its own arithmetic differs only in the order of sums."""
    torch.manual_seed(3)
    module = ResnetGenerator(Architecture(blocks=2, ngf=8)).eval()
    typed = keep_norms_in_float32(copy.deepcopy(module).half())

    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        error = typed(images.half()).float() - module(images)

    assert error.abs().max() < 0.02
    assert error.square().mean().sqrt() < 0.002


def test_only_the_norms_are_kept_in_float32() -> None:
    module = keep_norms_in_float32(ResnetGenerator(Architecture(blocks=1, ngf=4, affine=True)).half())

    norms = [child for child in module.modules() if isinstance(child, Float32Norm)]
    assert len(norms) == 7
    assert all(parameter.dtype == torch.float32 for norm in norms for parameter in norm.parameters())
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(convolution.weight.dtype == torch.float16 for convolution in convolutions)


def test_batches_of_larger_images_are_smaller() -> None:
    assert [Profile.for_side(side).batch for side in (128, 256, 512, 1024, 2048)] == [32, 32, 8, 2, 1]


def test_a_profile_has_the_requested_batch() -> None:
    assert [Profile.for_side(side, batch=64).batch for side in (128, 256, 512, 1024, 4096)] == [64, 64, 16, 4, 1]
    assert Profile.for_side(256, batch=64).takes(64, 256, 256)


def test_a_profile_covers_photos_with_the_short_side_it_is_tuned_for() -> None:
    profile = Profile.for_side(256)

    assert profile.takes(32, 256, 256)
    assert profile.takes(1, 512, 256)
    assert not profile.takes(33, 256, 256)
    assert not profile.takes(1, 516, 256)
    assert not profile.takes(1, 256, 12)


def test_an_image_is_run_by_the_engine_tuned_for_the_nearest_size() -> None:
    profiles = [Profile.for_side(side) for side in (256, 512, 1024)]
    found = [nearest(profiles, *shape) for shape in ((256, 256), (384, 256), (512, 512), (512, 768), (64, 64))]
    assert [profile and profile.height for profile in found] == [256, 256, 512, 512, 256]
    assert nearest(profiles, 1500, 2000) == profiles[2]
    assert nearest(profiles, 3000, 4000) is None


def test_a_batch_larger_than_an_engine_takes_is_split() -> None:
    """The engines are stand-ins that record their calls, so that no GPU is needed."""
    given: list[tuple[int, ...]] = []

    def engine(images_NCHW: torch.Tensor) -> torch.Tensor:
        given.append(tuple(images_NCHW.shape))
        return -images_NCHW

    backend = TensorRTBackend.__new__(TensorRTBackend)
    backend._dtype, backend._channels = torch.float32, 3
    backend._engines = {Profile(batch=2, height=64, width=64): engine}  # type: ignore[dict-item]
    backend._module = torch.nn.Identity()
    batch = torch.randint(0, 256, (5, 64, 96, 3), dtype=torch.uint8)

    assert torch.equal(backend._translate(batch), 255 - batch)
    assert given == [(2, 3, 64, 96), (2, 3, 64, 96), (1, 3, 64, 96)]
    assert torch.equal(backend._translate(batch[:, :, :8]), batch[:, :, :8]), (
        "too narrow for any engine: the module runs it"
    )
    assert len(given) == 3


@pytest.mark.skipif(installed(), reason="TensorRT is installed")
def test_without_tensorrt_the_error_names_what_to_install() -> None:
    with pytest.raises(BackendUnavailable, match="pip install torch-tensorrt"):
        runtime()


@pytest.mark.needs_tensorrt_rtx
@pytest.mark.parametrize("kind", KINDS)
def test_torch_tensorrt_builds_the_whole_network_without_a_gpu(kind: str, tmp_path: Path) -> None:
    arch = KINDS[kind]
    model = tmp_path / "model.safetensors"
    save_generator(model, ResnetGenerator(arch), Card(name=kind, architecture=arch))
    command = [sys.executable, "-m", "tests.engine.runtime.backends.rtx_without_gpu", str(model)]

    built = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    layers = built["layers"]
    assert built["bytes"] > 10_000
    assert layers["CONVOLUTION HALF"] + layers.get("DECONVOLUTION HALF", 0) == 8
    assert layers["SCALE FLOAT" if arch.track_running_stats else "NORMALIZATION FLOAT"] == 7
    assert not {"CONVOLUTION FLOAT", "DECONVOLUTION FLOAT", "SCALE HALF", "NORMALIZATION HALF"} & set(layers)


@pytest.mark.needs_cuda
@pytest.mark.skipif(not installed(), reason="TensorRT is not installed")
def test_engines_on_a_gpu_pass_the_parity_check_and_load_without_a_build(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, store, profiles = (
        torch.device("cuda", 0),
        PackageCache(tmp_path),
        (Profile(4, 64, 64), Profile(1, 256, 256)),
    )
    for case in TensorRTBackend(generator, "fp16", device, store, profiles).parity_cases:
        assert compare(generator, case.run).passed

    monkeypatch.setattr("engine.runtime.backends.tensorrt.convert", None)
    again = TensorRTBackend(generator, "fp16", device, store, profiles)

    assert compare(generator, again).passed


@pytest.mark.needs_cuda
def test_the_key_on_a_gpu_has_its_model_and_versions(generator: Generator) -> None:
    key = engine_key(generator, "fp16", torch.device("cuda", 0), Profile())

    assert torch.cuda.get_device_name(0) in key["machine"]
    assert key["torch"] == torch.__version__
    assert key["profile"] == "32x256x256"
