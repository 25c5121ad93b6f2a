"""Really compiles a tiny generator, once for all these tests, and compares it with eager."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import BackendUnavailable, SetupError
from engine.model import network, upsampling
from engine.model.weights import Generator
from engine.runtime.backends import inductor
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import InductorBackend, find_compiler, package_key
from engine.runtime.cache import PACKAGE, PackageCache
from tests.images import picture, psnr_db

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def compiled(generator: Generator, cache: Path, guessable: Path) -> InductorBackend:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(guessable))
        return InductorBackend(generator, "fp32", CPU, PackageCache(cache))


@pytest.fixture(scope="session")
def guessable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return TorchInductor's own folder, which by default has a name that others can guess."""
    return tmp_path_factory.mktemp("inductor")


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.stack([torch.from_numpy(np.array(picture(width, height, seed=i))) for i in range(count)])


@pytest.mark.needs_compiler
@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 64, 48), (3, 32, 32), (5, 128, 96)])
def test_one_package_translates_every_shape_as_eager_does(
    shape: tuple[int, int, int], compiled: InductorBackend, generator: Generator
) -> None:
    x = pictures(*shape)
    result = compiled(x)
    assert (result.shape, result.dtype) == (x.shape, torch.uint8)
    assert psnr_db(result.numpy(), EagerBackend(generator, "fp32", CPU)(x).numpy()) >= 40


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("compiled")
def test_it_compiles_in_a_private_folder_which_is_deleted(cache: Path, guessable: Path) -> None:
    assert list(guessable.iterdir()) == []
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".pt2", ".json", ".lock"}


@pytest.mark.needs_compiler
def test_company_changes_no_value_by_more_than_a_step(compiled: InductorBackend) -> None:
    x = pictures(5, 64, 48)
    alone = torch.cat([compiled(one_HWC[None]) for one_HWC in x])
    assert (compiled(x).int() - alone.int()).abs().max() <= 1


@pytest.mark.needs_compiler
@pytest.mark.usefixtures("compiled")
def test_what_is_compiled_is_loaded_without_a_compiler(
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
    monkeypatch.setattr(inductor, "_compile", lambda _generator, _precision, _device, path: build(path))
    assert InductorBackend(generator, "fp32", CPU, store)(pictures(1, 16, 16)).shape == (1, 16, 16, 3)
    assert len(builds) == 2
    assert (package.parent / PACKAGE).read_bytes() == content


def test_without_a_compiler_it_cannot_be_made_and_says_what_to_do(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None
    with pytest.raises(BackendUnavailable, match=r"needs a C\+\+ compiler .*--backend eager") as caught:
        InductorBackend(generator, "fp32", CPU, PackageCache(tmp_path))
    assert isinstance(caught.value, SetupError)


def test_a_package_belongs_to_weights_precision_machine_and_torch(generator: Generator) -> None:
    key = package_key(generator, "fp32", CPU)
    assert key["weights"] == generator.sha256
    assert key["torch"] == torch.__version__
    assert key != package_key(generator, "bf16", CPU)


def test_a_package_belongs_to_the_code_that_shaped_it(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a network or a backend that was changed, then another key, so that old packages are not used."""
    before = package_key(generator, "fp32", CPU)
    for module in (network, upsampling, inductor):
        changed = tmp_path / f"{module.__name__}.py"
        changed.write_bytes(Path(str(module.__file__)).read_bytes() + b"# changed")
        with monkeypatch.context() as patched:
            patched.setattr(module, "__file__", str(changed))
            after = package_key(generator, "fp32", CPU)
        assert {name for name in before if before[name] != after[name]} == {"code"}
    assert package_key(generator, "fp32", CPU) == before


def test_the_machine_is_told_by_the_instructions_it_has(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package uses all instructions of the CPU it was made on, and would crash where one is missing."""
    here = package_key(generator, "fp32", CPU)
    real = Path.read_text

    def other_cpu(self: Path, *arguments: str, **options: str) -> str:
        if str(self) == "/proc/cpuinfo":
            return "processor : 0\nflags : fpu sse2 avx2\n"
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", other_cpu)
    assert package_key(generator, "fp32", CPU)["machine"] != here["machine"]
