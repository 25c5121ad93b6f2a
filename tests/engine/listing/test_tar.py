"""Inputs of tars: compressed, damaged, with links and newer copies."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from engine.errors import SetupError, SkipImage
from engine.listing import list_inputs
from tests.engine.listing.files import reason
from tests.images import photo


def tar(path: Path, *names: str, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            content = os.urandom(5000)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_lists_its_photos(mode: str, tmp_path: Path) -> None:
    src = tar(
        tmp_path / "photos.bin", "b.jpg", "./a/c.png", "a/readme", ".x/d.jpg", "/abs.jpg", "a/../../e.jpg", mode=mode
    )
    items = []
    for item in list_inputs(src):
        items.append(item.key)
        if ".." in item.key:
            assert reason(item) == "name leads out of the archive"
        else:
            assert len(item.read()) == 5000
    assert items == ["b.jpg", "a/c.png", "abs.jpg", "a/../../e.jpg"]
    assert dict(list_inputs(src).left_out) == {"no suffix": 1, "hidden": 1, "links": 1}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_torn_tar_lists_what_comes_before_the_tear_and_a_failure(mode: str, tmp_path: Path) -> None:
    src = tar(tmp_path / "photos.tar", *(f"{i}.jpg" for i in range(9)), mode=mode)
    src.write_bytes(src.read_bytes()[: src.stat().st_size // 2])
    whole, reasons = 0, []
    for item in list_inputs(src):
        try:
            whole += len(item.read()) == 5000
        except SkipImage as error:
            reasons.append(str(error))
    assert 1 <= whole < 9
    assert reasons[-1].startswith("archive cannot be read to its end: ")


def add(archive: tarfile.TarFile, name: str, content: bytes, mtime: float = 0, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), int(mtime)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def compressed(path: Path, how: str) -> Path:
    """Compress a tar with zstd, or as tarfile does."""
    if how == "zst":
        packed = path.with_suffix(".tar.zst")
        packed.write_bytes(zstandard.compress(path.read_bytes()))
    else:
        subprocess.run([{"gz": "gzip", "bz2": "bzip2", "xz": "xz"}[how], "-k", path], check=True)
        packed = path.with_suffix(f".tar.{how}")
    return packed


HOW = ["", "gz", "bz2", "xz", "zst"]


@pytest.fixture(params=HOW, ids=lambda how: how or "plain")
def odd_tar(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tar with a hard link, two copies of one name, and a JPEG without suffix."""
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "a.jpg", b"first")
        add(archive, "b.jpg", b"old")
        add(archive, "album/link.jpg", b"", type=tarfile.LNKTYPE, linkname="a.jpg", mtime=3)
        add(archive, "IMG_1", photo(seed=1))
        add(archive, "./b.jpg", b"new", mtime=5)
        add(archive, "lost.jpg", b"", type=tarfile.LNKTYPE, linkname="nowhere.jpg")
    return compressed(path, request.param) if request.param else path


def test_hard_links_are_files_and_the_newest_copy_of_a_name_counts(odd_tar: Path) -> None:
    inventory = list_inputs(odd_tar)
    read = {item.key: item.read() for item in inventory}
    assert read == {"a.jpg": b"first", "album/link.jpg": b"first", "IMG_1": photo(seed=1), "b.jpg": b"new"}
    assert inventory.left_out == {"older copies": 1, "links": 1}
    assert {item.key: item.suffix for item in inventory}["IMG_1"] == ".jpg"


def test_members_can_be_read_in_any_order_and_in_another_process(odd_tar: Path) -> None:
    inputs = pickle.loads(pickle.dumps(list_inputs(odd_tar).inputs))
    backwards = {item.key: item.read() for item in reversed(inputs)}
    assert backwards == {item.key: item.read() for item in inputs}


def test_a_sparse_member_is_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"end")
    subprocess.run(["tar", "-C", tmp_path, "-cSf", tmp_path / "s.tar", "sparse.jpg"], check=True)
    assert (tmp_path / "s.tar").stat().st_size < 100_000
    (item,) = list_inputs(tmp_path / "s.tar")
    assert item.read() == (tmp_path / "sparse.jpg").read_bytes()


def test_results_of_solstice_inside_a_tar_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name in ("a.jpg", "winter/a.jpg", "winter/.solstice/manifest.sqlite", "@eaDir/a.jpg", "@eaDir/b.jpg"):
            add(archive, name, b"x")
    inventory = list_inputs(tmp_path / "t.tar")
    assert [item.key for item in inventory] == ["a.jpg"]
    assert inventory.left_out == {"Solstice results/": 1, "@eaDir/": 1}


def test_a_compressed_file_that_holds_no_tar_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    subprocess.run(["gzip", tmp_path / "a.jpg"], check=True)
    with pytest.raises(SetupError, match="not a tar or a zip"):
        list_inputs(tmp_path / "a.jpg.gz")
