"""Compiled packages: kept by key, checked by hash, built once however many ask."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.runtime.cache import PACKAGE, PackageCache, default_cache

KEY = {"backend": "b", "weights": "w"}


class Builder:
    """Writes a package and counts how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, path: Path) -> None:
        self.times += 1
        path.write_bytes(b"package")


def test_a_package_is_built_once_and_found_again(tmp_path: Path) -> None:
    build = Builder()
    assert PackageCache(tmp_path).get(KEY) is None
    first = PackageCache(tmp_path).get_or_build(KEY, build)
    assert first.read_bytes() == b"package"
    assert PackageCache(tmp_path).get_or_build(KEY, build) == PackageCache(tmp_path).get(KEY) == first
    assert build.times == 1


def test_another_key_is_another_package(tmp_path: Path) -> None:
    build = Builder()
    cache = PackageCache(tmp_path)
    assert cache.get_or_build(KEY, build) != cache.get_or_build(KEY | {"weights": "x"}, build)
    assert build.times == 2


@pytest.mark.parametrize(
    "damage", ["package cut", "package gone", "record cut", "record of another key", "record is a list"]
)
def test_what_is_damaged_is_built_again_with_one_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, build = PackageCache(tmp_path), Builder()
    package = cache.get_or_build(KEY, build)
    record = package.with_name("key.json")
    match damage:
        case "package cut":
            package.write_bytes(b"pack")
        case "package gone":
            package.unlink()
        case "record cut":
            record.write_text(record.read_text()[:20])
        case "record of another key":
            record.write_text(json.dumps(json.loads(record.read_text()) | {"key": {}}))
        case "record is a list":
            record.write_text("[]")
    assert cache.get(KEY) is None
    with caplog.at_level(logging.WARNING):
        assert cache.get_or_build(KEY, build).read_bytes() == b"package"
    assert build.times == 2
    assert [record.message for record in caplog.records if "damaged" in record.message] == [
        f"The compiled package in {package.parent} is damaged and is built again."
    ]


def test_a_build_that_fails_leaves_nothing_behind_and_is_tried_again(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise ZeroDivisionError

    cache, build = PackageCache(tmp_path), Builder()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_build(KEY, fails)
    assert cache.get(KEY) is None
    package = cache.get_or_build(KEY, build)
    assert {path.name for path in package.parent.iterdir()} == {PACKAGE, "key.json", "lock"}


def test_two_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    """Given a build that is not done before the other process has asked, then there is one build and two packages."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from engine.runtime.cache import PackageCache

        root, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

        def build(path):
            print("built", flush=True)
            while not (root / other).exists():  # hold the build until the other process is about to ask
                time.sleep(0.01)
            time.sleep(0.2)
            path.write_bytes(b"package")

        (root / name).touch()
        print(PackageCache(root / "cache").get_or_build({"k": "v"}, build).read_bytes().decode())
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), *names], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        for names in (("a", "b"), ("b", "a"))
    ]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(outputs) == [["built", "package"], ["package"]]


def test_a_folder_that_cannot_be_made_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"Cannot write compiled packages to .*SOLSTICE_CACHE"):
        PackageCache(tmp_path / "file").get_or_build(KEY, Builder())


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLSTICE_CACHE", "/named")
    assert default_cache() == Path("/named")
    monkeypatch.delenv("SOLSTICE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/solstice")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/solstice")


def test_notes_stay_with_their_package_and_go_with_it(tmp_path: Path) -> None:
    cache, build = PackageCache(tmp_path), Builder()
    package = cache.get_or_build(KEY, build)
    cache.note(KEY, parity={"psnr_db": 50})
    cache.note(KEY, other=1)
    assert cache.notes(KEY) == {"parity": {"psnr_db": 50}, "other": 1}
    assert cache.get(KEY) == package
    package.unlink()
    cache.get_or_build(KEY, build)
    assert cache.notes(KEY) == {}
