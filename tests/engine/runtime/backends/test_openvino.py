from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.config import GenerateConfig
from engine.errors import BackendUnavailable
from engine.model.card import Card
from engine.model.weights import Generator, save_generator
from engine.runtime.backends import openvino
from engine.runtime.backends.openvino import OpenVINOBackend, openvino_key
from engine.runtime.cache import PackageCache
from engine.runtime.parity import check
from engine.runtime.select import choices, choose_backend, measurable, measured_rates
from tests.engine.model.variants import VARIANTS, randomised

CPU = torch.device("cpu")


@pytest.mark.needs_openvino
def test_it_passes_the_parity_check_for_every_shape_and_loads_without_compiling(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PackageCache(tmp_path)
    built = OpenVINOBackend(generator, "fp32", CPU, cache)
    result = check(generator, built, cache)
    assert result.passed
    assert result.max_error <= 1
    monkeypatch.setattr(openvino, "_compile", None)
    loaded = OpenVINOBackend(generator, "fp32", CPU, cache)
    for shape in ((1, 16, 16, 3), (5, 32, 48, 3)):
        x = torch.randint(0, 256, shape, dtype=torch.uint8)
        first = loaded(x)
        loaded(255 - x)
        assert torch.equal(first, built(x)), "a later call must not change an earlier result"


@pytest.mark.needs_openvino
@pytest.mark.parametrize("name", ["batch, zero", "blur", "unet, batch", "gray"])
def test_other_generators_pass_the_parity_check(name: str, tmp_path: Path) -> None:
    module, cache = randomised(VARIANTS[name]), PackageCache(tmp_path)
    other = Generator(module, Card(name=name, architecture=module.arch), name)
    result = check(other, OpenVINOBackend(other, "fp32", CPU, cache), cache)
    assert result.max_error <= 1


@pytest.mark.needs_openvino
def test_a_signal_after_the_release_of_models_does_not_crash(generator: Generator, tmp_path: Path) -> None:
    """Models are released in another order and in another thread than they were loaded in."""
    command = """
import faulthandler, gc, os, signal, sys, threading
from pathlib import Path
import torch
from engine.model.weights import load_file
from engine.runtime.backends.openvino import OpenVINOBackend
from engine.runtime.cache import PackageCache
from engine.system.signal_stack import signal_stack
faulthandler.enable()  # installs an alternate signal stack in the main thread
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
before = signal_stack()
generator, cache = load_file(Path(sys.argv[1])), PackageCache(Path(sys.argv[2]))
models = [OpenVINOBackend(generator, "fp32", torch.device("cpu"), cache) for _ in range(2)]
assert signal_stack() == before
elsewhere = []
def release():
    own = signal_stack()
    del models[0]
    gc.collect()
    elsewhere.append(signal_stack() == own)
thread = threading.Thread(target=release)
thread.start()
thread.join()
del models[:]
gc.collect()
assert elsewhere == [True] and signal_stack() == before
os.kill(os.getpid(), signal.SIGTERM)
"""
    path = tmp_path / "tiny.safetensors"
    save_generator(path, generator.module, generator.card)
    (tmp_path / "cache").mkdir(mode=0o700)
    words = [sys.executable, "-c", command, str(path), str(tmp_path / "cache")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.needs_openvino
def test_auto_uses_it_only_where_it_was_measured_fastest(generator: Generator, tmp_path: Path) -> None:
    config = GenerateConfig(device="cpu", precision="fp32", cache=tmp_path)
    cache = PackageCache(tmp_path)
    OpenVINOBackend(generator, "fp32", CPU, cache)
    assert "openvino" in measurable(CPU)
    assert choices(generator, config, CPU, cache)[0].name != "openvino"
    cache.note(openvino_key(generator, "fp32", CPU), rates={"eager": 5.0, "openvino": 9.5})
    assert measured_rates(generator, config, CPU, cache) == {"eager": 5.0, "openvino": 9.5}
    backend, reason = choose_backend(generator, config)
    assert backend.name == "openvino"
    assert "measured fastest here, 9.5 images/s" in reason


def test_without_openvino_the_error_names_what_to_install(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    with pytest.raises(BackendUnavailable, match=r"pip install 'solstice-engine\[openvino\]'"):
        OpenVINOBackend(generator, "fp32", CPU, PackageCache(tmp_path))
    assert "openvino" not in measurable(CPU)


@pytest.mark.needs_openvino
def test_other_devices_and_precisions_are_refused(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="on the CPU only"):
        OpenVINOBackend(generator, "fp32", torch.device("cuda", 0), PackageCache(tmp_path))
    with pytest.raises(BackendUnavailable, match="not in fp16"):
        OpenVINOBackend(generator, "fp16", CPU, PackageCache(tmp_path))
