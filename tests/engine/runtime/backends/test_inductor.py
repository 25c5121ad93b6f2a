"""Compile a tiny generator, once for all these tests, and compare it with eager."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import BackendUnavailable, SetupError
from engine.model import inference, network, upsampling
from engine.model.card import Architecture
from engine.model.inference import InferenceGenerator
from engine.model.weights import Generator
from engine.runtime.backends import inductor
from engine.runtime.backends.aoti import CompiledLibrary
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import WIDE, Bounds, InductorBackend, bounds_for, package_key
from engine.runtime.cache import PACKAGE, PackageCache
from engine.system.compiler import find_compiler
from tests.engine.model.variants import randomised
from tests.images import picture, psnr_db

CPU = torch.device("cpu")


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(picture(width, height, seed=i))) for i in range(count)])


@pytest.mark.needs_compiler
@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 64, 48), (3, 32, 32), (5, 128, 96)])
def test_one_package_equals_eager_for_every_shape(
    shape: tuple[int, int, int], compiled: InductorBackend, generator: Generator
) -> None:
    x = pictures(*shape)
    result = compiled(x)
    assert (result.shape, result.dtype) == (x.shape, torch.uint8)
    assert psnr_db(result.numpy(), EagerBackend(generator, "fp32", CPU)(x).numpy()) >= 40


class Together(nn.Module):
    """Several generators on the same pixels, because compiling each alone takes half a minute."""

    def __init__(self, architectures: Sequence[Architecture], *, compiled: bool) -> None:
        super().__init__()
        self.generators = nn.ModuleList(
            InferenceGenerator(randomised(arch), torch.float32, compiled=compiled) for arch in architectures
        )

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        return torch.cat([generator(pixels_NHWC) for generator in self.generators])


@pytest.mark.needs_compiler
@pytest.mark.timeout(900)
def test_other_generators_compile_to_what_eager_computes(tmp_path: Path) -> None:
    """For a U-Net this includes images that it reduces to a single pixel or a row of pixels."""
    filtered = Architecture(
        blocks=1, ngf=2, norm="batch", bias=False, padding="zero", downsample="blur", upsample="blur", channels_in=1
    )
    architectures = (filtered, Architecture(network="unet", levels=5, ngf=2, channels_out=1))
    package = tmp_path / "package.pt2"
    inductor.compile_module(Together(architectures, compiled=True), package, 32, CPU)
    run, eager = CompiledLibrary(package), Together(architectures, compiled=False)
    for shape in ((1, 32, 32), (1, 32, 96), (3, 64, 32)):
        x = pictures(*shape)
        assert (run(x).int() - eager(x).int()).abs().max() <= 1


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("compiled")
def test_it_compiles_in_a_private_folder_which_is_deleted(cache: Path, guessable: Path) -> None:
    assert list(guessable.iterdir()) == []
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".pt2", ".json", ".lock"}


@pytest.mark.needs_compiler
def test_other_images_of_a_batch_change_no_value_by_more_than_one_level(compiled: InductorBackend) -> None:
    x = pictures(5, 64, 48)
    alone = torch.cat([compiled(one_HWC[None]) for one_HWC in x])
    assert (compiled(x).int() - alone.int()).abs().max() <= 1


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("compiled")
def test_a_package_is_found_and_loaded_without_a_compiler(
    generator: Generator, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "/nowhere")
    with caplog.at_level(logging.WARNING):
        backend = InductorBackend(generator, "fp32", CPU, PackageCache(cache))
    assert caplog.messages == []
    assert backend(pictures(1, 32, 32)).shape == (1, 32, 32, 3)


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("compiled")
def test_a_damaged_package_is_not_loaded_but_built_again(
    generator: Generator, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build is the stored package of the other tests, so that this one need not compile."""
    key = package_key(generator, "fp32", CPU)
    good = PackageCache(cache).get(key)
    assert good is not None
    content = good.read_bytes()
    builds: list[Path] = []

    def build(path: Path) -> None:
        builds.append(path)
        path.write_bytes(content)

    store = PackageCache(tmp_path)
    package = store.get_or_build(key, build)
    package.write_bytes(content[:-1000])
    monkeypatch.setattr(inductor._Compilation, "__call__", lambda _, path: build(path))
    assert InductorBackend(generator, "fp32", CPU, store)(pictures(1, 16, 16)).shape == (1, 16, 16, 3)
    assert len(builds) == 2
    assert (package.parent / PACKAGE).read_bytes() == content


def test_without_a_compiler_it_is_unavailable_and_the_remedy_is_named(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None
    with pytest.raises(BackendUnavailable, match=r"needs a C\+\+ compiler .*--backend eager") as caught:
        InductorBackend(generator, "fp32", CPU, PackageCache(tmp_path))
    assert isinstance(caught.value, SetupError)


def test_the_key_has_weights_precision_machine_and_torch(generator: Generator) -> None:
    key = package_key(generator, "fp32", CPU)
    assert key["weights"] == generator.sha256
    assert key["torch"] == torch.__version__
    assert key != package_key(generator, "bf16", CPU)


def test_the_key_changes_with_the_code_of_network_and_backend(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package compiled by older code must not be used."""
    before = package_key(generator, "fp32", CPU)
    for module in (network, inference, upsampling, inductor):
        changed = tmp_path / f"{module.__name__}.py"
        changed.write_bytes(Path(str(module.__file__)).read_bytes() + b"# changed")
        with monkeypatch.context() as patched:
            patched.setattr(module, "__file__", str(changed))
            after = package_key(generator, "fp32", CPU)
        assert {name for name in before if before[name] != after[name]} == {"code"}
    assert package_key(generator, "fp32", CPU) == before


def test_the_machine_in_the_key_is_its_instruction_set(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package uses all instructions of the CPU that compiled it and would crash where one is missing."""
    here = package_key(generator, "fp32", CPU)
    real = Path.read_text

    def other_cpu(self: Path, *arguments: str, **options: str) -> str:
        if str(self) == "/proc/cpuinfo":
            return "processor : 0\nflags : fpu sse2 avx2\n"
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", other_cpu)
    assert package_key(generator, "fp32", CPU)["machine"] != here["machine"]


def test_the_key_has_the_compiler_and_its_flags(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = package_key(generator, "fp32", CPU)
    assert "-fno-tree-slp-vectorize" in before["flags"]
    monkeypatch.setenv("TORCHINDUCTOR_CPP_MARCH", "x86-64-v4")
    assert package_key(generator, "fp32", CPU)["flags"] == "x86-64-v4 -fno-tree-slp-vectorize"
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\necho 'g++ (of another version) 99.1'\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    assert package_key(generator, "fp32", CPU)["compiler"] == "g++ (of another version) 99.1"
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "compiler" not in package_key(generator, "fp32", CPU)


@pytest.mark.needs_compiler
def test_a_call_releases_the_gil(compiled: InductorBackend) -> None:
    """During a long call another thread counts about as far as beside an idle thread."""
    x = pictures(8, 512, 512)
    compiled(x)
    steps, running = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while running.is_set():
            steps += 1
            threading.Event().wait(0.001)

    running.set()
    thread = threading.Thread(target=count)
    thread.start()
    before = steps
    compiled(x)
    during = steps - before
    running.clear()
    thread.join()
    assert during > 10


@pytest.mark.needs_compiler
def test_repeated_calls_release_their_memory(compiled: InductorBackend) -> None:
    """Measures resident memory, since earlier tests of the process hide its peak; takes the least of four rounds."""
    x = pictures(1, 64, 64)

    def added_bytes() -> int:
        before = resident_bytes()
        for _ in range(1000):
            compiled(x)
        return resident_bytes() - before

    assert min(added_bytes() for _ in range(4)) < 1000 * 64 * 64 * 3 / 2, "one input or output is twice as much"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.needs_compiler
def test_loading_a_package_does_not_import_the_compiler(model_file: Path, own_cache: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from engine.config import GenerateConfig
        from engine.model.weights import load_generator
        from engine.runtime.translator import BatchTranslator

        config = GenerateConfig(backend="inductor", precision="fp32", device="cpu", cache=Path(sys.argv[2]))
        translator = BatchTranslator(load_generator(sys.argv[1]), config)
        print(translator.backend.name, *({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
        """
    )
    command = [sys.executable, "-c", script, str(model_file), str(own_cache)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["inductor"]


def test_the_tight_package_of_a_gpu_indexes_with_32_bits() -> None:
    for side in (64, 256, 512, 1024, 4096):
        bounds = Bounds.tight(side, channels=64)
        assert bounds.images * 64 * bounds.side**2 < 2**31 or bounds.images == 1
        assert bounds.takes(side, 2 * side)
        assert not bounds.takes(side, 2 * side + 4)
    assert Bounds.tight(256, channels=64) == Bounds(images=64, side=512)


def test_a_gpu_has_a_tight_and_a_wide_package(generator: Generator) -> None:
    assert bounds_for(generator, CPU, (256,)) == [WIDE]
    tight, wide = bounds_for(generator, torch.device("cuda", 0), (256, 512))
    assert wide == WIDE
    assert tight.takes(256, 256)
    assert tight.images == 64


def test_the_tight_package_takes_the_largest_batch_if_32_bits_index_it(generator: Generator) -> None:
    device = torch.device("cuda", 0)
    assert bounds_for(generator, device, (256,), batch=8)[0].images == 64
    assert bounds_for(generator, device, (256,), batch=100)[0].images == 100
    assert bounds_for(generator, device, (1024,), batch=1024)[0].images == (2**31 - 1) // (4 * 2048**2)


def test_each_batch_is_split_for_the_tightest_package_that_takes_its_images() -> None:
    """The packages are stand-ins."""
    backend = InductorBackend.__new__(InductorBackend)
    calls: list[tuple[str, int]] = []

    def package(name: str) -> Callable[[Tensor], Tensor]:
        return lambda pixels: calls.append((name, len(pixels))) or pixels  # type: ignore[func-returns-value]

    backend._runs = [(Bounds(images=2, side=64), package("tight")), (WIDE, package("wide"))]
    for shape in ((2, 64, 64), (3, 64, 64), (1, 64, 68)):
        batch = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
        assert torch.equal(backend(batch), batch)
    assert calls == [("tight", 2), ("tight", 2), ("tight", 1), ("wide", 1)]
