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
from engine.runtime.cache import PACKAGE, ArtefactStore, default_cache

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
    assert ArtefactStore(tmp_path).get(KEY) is None
    first = ArtefactStore(tmp_path).get_or_build(KEY, build)
    assert first.read_bytes() == b"package"
    assert ArtefactStore(tmp_path).get_or_build(KEY, build) == ArtefactStore(tmp_path).get(KEY) == first
    assert build.times == 1


def test_another_key_is_another_package(tmp_path: Path) -> None:
    build = Builder()
    store = ArtefactStore(tmp_path)
    assert store.get_or_build(KEY, build) != store.get_or_build(KEY | {"weights": "x"}, build)
    assert build.times == 2


@pytest.mark.parametrize(
    "damage", ["package cut", "package gone", "entry cut", "entry of another key", "entry is a list"]
)
def test_what_is_damaged_is_built_again_with_one_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, build = ArtefactStore(tmp_path), Builder()
    package = store.get_or_build(KEY, build)
    entry = package.with_name("key.json")
    match damage:
        case "package cut":
            package.write_bytes(b"pack")
        case "package gone":
            package.unlink()
        case "entry cut":
            entry.write_text(entry.read_text()[:20])
        case "entry of another key":
            entry.write_text(json.dumps(json.loads(entry.read_text()) | {"key": {}}))
        case "entry is a list":
            entry.write_text("[]")
    assert store.get(KEY) is None
    with caplog.at_level(logging.WARNING):
        assert store.get_or_build(KEY, build).read_bytes() == b"package"
    assert build.times == 2
    assert [record.message for record in caplog.records if "damaged" in record.message] == [
        f"The compiled generator in {package.parent} is damaged and is built again."
    ]


def test_a_build_that_fails_leaves_nothing_behind_and_is_tried_again(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise ZeroDivisionError

    store, build = ArtefactStore(tmp_path), Builder()
    with pytest.raises(ZeroDivisionError):
        store.get_or_build(KEY, fails)
    assert store.get(KEY) is None
    package = store.get_or_build(KEY, build)
    assert {path.name for path in package.parent.iterdir()} == {PACKAGE, "key.json", "lock"}


def test_two_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    """Given a build that is not done before the other process has asked, then there is one build and two packages."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from engine.runtime.cache import ArtefactStore

        root, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

        def build(path):
            print("built", flush=True)
            while not (root / other).exists():  # hold the build until the other process is about to ask
                time.sleep(0.01)
            time.sleep(0.2)
            path.write_bytes(b"package")

        (root / name).touch()
        print(ArtefactStore(root / "cache").get_or_build({"k": "v"}, build).read_bytes().decode())
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
    with pytest.raises(SetupError, match=r"Cannot write compiled generators to .*SOLSTICE_CACHE"):
        ArtefactStore(tmp_path / "file").get_or_build(KEY, Builder())


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
    store, build = ArtefactStore(tmp_path), Builder()
    package = store.get_or_build(KEY, build)
    store.note(KEY, gate={"psnr_db": 50})
    store.note(KEY, other=1)
    assert store.notes(KEY) == {"gate": {"psnr_db": 50}, "other": 1}
    assert store.get(KEY) == package
    package.unlink()
    store.get_or_build(KEY, build)
    assert store.notes(KEY) == {}
