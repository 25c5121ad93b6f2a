"""Cache of compiled packages: stored by key, verified by hash, built once by concurrent processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.runtime.cache import PACKAGE, PackageCache, default_cache, require_private

KEY = {"backend": "b", "weights": "w"}


class Builder:
    """Build function that writes a package and counts its calls."""

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
def test_a_damaged_package_is_built_again_with_one_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, build = PackageCache(tmp_path), Builder()
    package = cache.get_or_build(KEY, build)
    (record,) = (tmp_path / "hashes").glob("*.json")
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


def test_a_failed_build_leaves_no_files_and_is_repeated(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise ZeroDivisionError

    cache, build = PackageCache(tmp_path), Builder()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_build(KEY, fails)
    assert cache.get(KEY) is None
    package = cache.get_or_build(KEY, build)
    name = package.parent.name
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"packages/{name}/{PACKAGE}", f"hashes/{name}.json", f"hashes/{name}.lock"}


def test_two_processes_at_the_same_time_build_once(tmp_path: Path) -> None:
    """The build ends only after the other process has requested the package: one build, two results."""
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from engine.runtime.cache import PackageCache

        root, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

        def build(path):
            print("built", flush=True)
            while not (root / other).exists():  # hold the build until the other process is about to request it
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


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"Cannot write compiled packages to .*SOLSTICE_CACHE"):
        PackageCache(tmp_path / "file").get_or_build(KEY, Builder())


def test_environment_variables_set_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLSTICE_CACHE", "/named")
    assert default_cache() == Path("/named")
    monkeypatch.delenv("SOLSTICE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/solstice")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/solstice")


def test_notes_are_kept_and_deleted_with_their_package(tmp_path: Path) -> None:
    cache, build = PackageCache(tmp_path), Builder()
    package = cache.get_or_build(KEY, build)
    cache.note(KEY, parity={"psnr_db": 50})
    cache.note(KEY, other=1)
    assert cache.notes(KEY) == {"parity": {"psnr_db": 50}, "other": 1}
    assert cache.get(KEY) == package
    package.unlink()
    cache.get_or_build(KEY, build)
    assert cache.notes(KEY) == {}


def filled(root: Path) -> Path:
    """Fill a cache and return the path of its package."""
    return PackageCache(root).get_or_build(KEY, Builder())


PARTS = ["", "packages", "packages/*", "packages/*/package.pt2", "hashes", "hashes/*.json"]


def refused(root: Path, sentence: str) -> None:
    """Check that neither a package nor its notes are read from a cache, with one sentence about the cause."""
    uses: list[Callable[[PackageCache], object]] = [
        lambda cache: cache.get(KEY),
        lambda cache: cache.notes(KEY),
        lambda cache: cache.get_or_build(KEY, Builder()),
    ]
    for use in uses:
        with pytest.raises(SetupError, match=sentence) as caught:
            use(PackageCache(root))
        assert "set SOLSTICE_CACHE to a folder of your own" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize("part", ["", "packages", "hashes", "hashes/*.json"])
def test_a_cache_writable_by_other_users_is_refused(part: str, mode: int, tmp_path: Path) -> None:
    filled(tmp_path / "cache")
    (path,) = [tmp_path / "cache"] if not part else (tmp_path / "cache").glob(part)
    path.chmod(path.stat().st_mode | mode)
    refused(tmp_path / "cache", "may be written by other users")


@pytest.mark.parametrize("part", ["packages/*", "packages/*/package.pt2"])
def test_a_package_writable_by_other_users_is_refused(part: str, tmp_path: Path) -> None:
    filled(tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(part)
    path.chmod(0o777)
    with pytest.raises(SetupError, match="may be written by other users"):
        PackageCache(tmp_path / "cache").get(KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")
@pytest.mark.parametrize("part", PARTS)
def test_a_cache_of_another_user_is_refused(part: str, tmp_path: Path) -> None:
    filled(tmp_path / "cache")
    (path,) = [tmp_path / "cache"] if not part else (tmp_path / "cache").glob(part)
    os.chown(path, 12345, -1)
    with pytest.raises(SetupError, match="belongs to another user"):
        PackageCache(tmp_path / "cache").get(KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")
def test_a_link_owned_by_another_user_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "real")
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    assert PackageCache(tmp_path / "cache").get(KEY) is not None
    os.lchown(tmp_path / "cache", 12345, -1)
    with pytest.raises(SetupError, match="belongs to another user"):
        PackageCache(tmp_path / "cache").get(KEY)


def test_a_hash_file_next_to_a_package_is_ignored(tmp_path: Path) -> None:
    """A user who can replace a package can also write a hash next to it."""
    package = filled(tmp_path)
    (record,) = (tmp_path / "hashes").glob("*.json")
    package.write_bytes(b"planted")
    digest = hashlib.sha256(b"planted").hexdigest()
    package.with_name("key.json").write_text(json.dumps(json.loads(record.read_text()) | {"sha256": digest}))
    assert PackageCache(tmp_path).get(KEY) is None
    assert PackageCache(tmp_path).get_or_build(KEY, Builder()).read_bytes() == b"package"


def test_a_package_is_built_in_a_private_folder(tmp_path: Path) -> None:
    modes: list[int] = []

    def build(path: Path) -> None:
        modes.append(path.parent.stat().st_mode & 0o777)
        path.write_bytes(b"package")

    previous = os.umask(0)
    try:
        package = PackageCache(tmp_path / "new/cache").get_or_build(KEY, build)
    finally:
        os.umask(previous)
    assert modes == [0o700]
    folders = (tmp_path / "new/cache", package.parent, package.parents[1], tmp_path / "new/cache/hashes")
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert package.stat().st_mode & 0o077 == 0


def test_a_new_cache_folder_is_private(tmp_path: Path) -> None:
    require_private(tmp_path / "none")
    assert PackageCache(tmp_path / "none").get(KEY) is None
    assert not (tmp_path / "none").exists()
