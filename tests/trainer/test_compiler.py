from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

from engine.system.compiler import GCC_FLAGS, find_compiler, is_gcc
from trainer.compiler import describe_compiler, describe_processor, set_compiler_flags

CPU = torch.device("cpu")
needs_gcc = pytest.mark.skipif(find_compiler() is None or not is_gcc(find_compiler() or ""), reason="no g++")


@needs_gcc
@pytest.mark.filterwarnings("ignore")  # deprecations inside torch's compiler
def test_every_kernel_of_torch_compile_is_built_with_the_flags_for_gcc() -> None:
    from torch._inductor import config
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions

    with config.patch({"cpp.march": None}):
        set_compiler_flags()
        set_compiler_flags()  # added once only
        command = CppBuilder("kernel", ["kernel.cpp"], CppTorchOptions()).get_command_line()
    assert command.count(GCC_FLAGS) == 1
    assert "-march=native " in command


@needs_gcc
@pytest.mark.filterwarnings("ignore")
def test_a_configured_target_architecture_is_kept() -> None:
    from torch._inductor import config

    with config.patch({"cpp.march": "x86-64-v3"}):
        set_compiler_flags()
        assert config.cpp.march == f"x86-64-v3 {GCC_FLAGS}"


@needs_gcc
def test_the_compiler_is_described_with_version_and_flags() -> None:
    compiler = find_compiler()
    assert compiler is not None
    first_line = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[
        0
    ]
    assert describe_compiler(CPU) == f"{first_line} {GCC_FLAGS}"


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_compiler() is None
    assert describe_compiler(CPU) == "none"


def test_the_processor_has_a_name() -> None:
    assert (
        shutil.which("lscpu") is None
        or describe_processor(CPU)
        in subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout + "x86_64 aarch64 arm"
    )
