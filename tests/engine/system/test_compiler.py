from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._inductor import config

from engine.system.compiler import compiler_version, find_compiler, flag_options, is_gcc


def test_the_compiler_is_the_one_that_cxx_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    found = find_compiler()
    assert found is not None
    assert found.endswith("/sh")


def test_no_compiler_is_found_where_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None


@pytest.mark.needs_compiler
def test_gnu_cxx_is_recognised_and_its_version_is_one_line() -> None:
    compiler = find_compiler()
    assert compiler is not None
    assert is_gcc(compiler) == ("g++" in compiler_version(compiler) or "GCC" in compiler_version(compiler))
    assert "\n" not in compiler_version(compiler)


def test_another_program_is_not_taken_for_gnu_cxx() -> None:
    assert not is_gcc(sys.executable)


def test_flags_are_passed_by_the_setting_of_pytorch_if_there_is_one() -> None:
    if hasattr(config.cpp, "march"):
        assert flag_options("native -fno-x") == {"cpp.march": "native -fno-x"}


@pytest.mark.needs_compiler
def test_without_that_setting_a_wrapper_script_adds_the_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in PyTorch 2.11."""
    monkeypatch.setattr(torch._inductor, "config", SimpleNamespace(cpp=SimpleNamespace()))
    (tmp_path / "a b.cpp").write_text("int main() { return FLAG; }")
    options = flag_options("x86-64 -DFLAG=7")
    assert options == flag_options("x86-64 -DFLAG=7")
    (nothing, script) = options["cpp.cxx"]
    assert nothing is None
    subprocess.run([script, tmp_path / "a b.cpp", "-o", tmp_path / "program"], check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 7
    assert is_gcc(script) == is_gcc(find_compiler() or "")
