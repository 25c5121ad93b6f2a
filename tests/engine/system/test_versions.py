"""Hashes of source files."""

from __future__ import annotations

from pathlib import Path

from engine.system.versions import code_of, installed


def test_the_hash_depends_on_every_file_and_is_computed_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.py", "b.py", "c.py")]
    for file in files:
        file.write_text("x = 1")
    a, b, c = map(str, files)
    together = code_of(a, b)
    assert together == code_of(a, c)
    files[1].write_text("x = 2")
    assert code_of(a, b) == together, "within a process the code is what was imported"
    code_of.cache_clear()
    assert code_of(a, b) != together


def test_without_source_files_the_installed_version_is_used(tmp_path: Path) -> None:
    assert code_of(str(tmp_path / "gone.py")) == installed("solstice-engine")
