from __future__ import annotations

import sys

import pytest

from engine.system.compiler import compiler_version, find_compiler, is_gcc


def test_the_compiler_is_the_one_that_cxx_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    found = find_compiler()
    assert found is not None
    assert found.endswith("/sh")


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_compiler() is None


@pytest.mark.needs_compiler
def test_gnu_cxx_is_recognised_and_its_version_is_one_line() -> None:
    compiler = find_compiler()
    assert compiler is not None
    assert is_gcc(compiler) == ("g++" in compiler_version(compiler) or "GCC" in compiler_version(compiler))
    assert "\n" not in compiler_version(compiler)


def test_another_program_is_not_gnu_cxx() -> None:
    assert not is_gcc(sys.executable)
