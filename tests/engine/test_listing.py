"""What there is to translate: folders with their oddities, lists, tars and zips, also damaged ones."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from engine.errors import SetupError, SkipImage
from engine.listing import Input, count_inputs, list_inputs

DATA = b"bytes of an image"


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(DATA)
    return root


def keys(src: Path, skip: Path | None = None) -> list[str]:
    return [item.key for item in list_inputs(src, skip)]


def reason(item: Input) -> str:
    with pytest.raises(SkipImage) as caught:
        item.read()
    return str(caught.value)


def test_a_folder_is_searched_through_in_a_fixed_order(tmp_path: Path) -> None:
    src = fill(tmp_path, "b.jpg", "a/z.PNG", "a/c/d.tif", "a.jpg", "a/notes.txt", "film.mp4")
    assert keys(src) == ["a/c/d.tif", "a/z.PNG", "a.jpg", "b.jpg"]
    assert {item.read() for item in list_inputs(src)} == {DATA}
    assert count_inputs(src) == 4


def test_hidden_files_and_folders_and_the_output_folder_are_left_out(tmp_path: Path) -> None:
    src = fill(tmp_path, "a.jpg", ".hidden.jpg", ".cache/b.jpg", "out/c.jpg", "deep/.git/d.jpg")
    assert keys(src, skip=src / "out") == ["a.jpg"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    src = fill(tmp_path / "src", "a/x.jpg")
    fill(tmp_path / "elsewhere", "y.jpg")
    (src / "linked").symlink_to(tmp_path / "elsewhere")
    (src / "a/up").symlink_to(src)
    (src / "again").symlink_to(src / "a")
    assert keys(src) == ["a/x.jpg", "linked/y.jpg"]


def test_a_link_to_the_output_folder_is_left_out_too(tmp_path: Path) -> None:
    src = fill(tmp_path / "src", "a.jpg")
    (src / "results").symlink_to(fill(tmp_path / "out", "a.jpg"))
    assert keys(src, skip=tmp_path / "out") == ["a.jpg"]


def test_what_is_no_readable_file_is_listed_with_its_reason(tmp_path: Path) -> None:
    """Given a link to nowhere, a link to itself and a pipe, then each fails alone; a folder is a folder by any name."""
    src = fill(tmp_path, "a.jpg", "folder.jpg/b.jpg")
    (src / "gone.jpg").symlink_to("nowhere")
    (src / "loop.jpg").symlink_to("loop.jpg")
    (src / "loop").symlink_to("loop")
    os.mkfifo(src / "pipe.jpg")
    items = {item.key: item for item in list_inputs(src)}
    assert list(items) == ["a.jpg", "folder.jpg/b.jpg", "gone.jpg", "loop.jpg", "pipe.jpg"]
    assert reason(items["gone.jpg"]) == "cannot be read: No such file or directory"
    assert "symbolic links" in reason(items["loop.jpg"])
    assert reason(items["pipe.jpg"]) == "not a regular file"


def test_an_identity_changes_with_size_and_time(tmp_path: Path) -> None:
    path = fill(tmp_path, "a.jpg") / "a.jpg"

    def identity() -> str:
        (item,) = list_inputs(tmp_path)
        return item.identity

    first = identity()
    assert identity() == first
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    second = identity()
    path.write_bytes(DATA + b"!")
    assert len({first, second, identity()}) == 3


def test_one_file_is_one_input_whatever_its_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "no-suffix")
    assert keys(tmp_path / "a.jpg") == ["a.jpg"]
    assert keys(tmp_path / "no-suffix") == ["no-suffix"]


def test_a_photo_with_a_zip_behind_its_end_is_a_photo(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("b.jpg", DATA)
    (tmp_path / "a.jpg").write_bytes(DATA + archive.getvalue())
    assert keys(tmp_path / "a.jpg") == ["a.jpg"]


def test_a_list_gives_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given relative, absolute, missing and outside paths, in any spelling, then each has its own answer."""
    monkeypatch.chdir(fill(tmp_path, "in/a.jpg", "in/b.jpg"))
    (tmp_path / "in/folder.jpg").mkdir()
    lines = ["in/a.jpg", "", f"{tmp_path}/in/b.jpg\r", "./in/a.jpg", "in/gone.jpg", "../x.jpg", "in/folder.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    items = list(list_inputs(tmp_path / "list.txt"))
    absolute = f"{tmp_path}/in/b.jpg".lstrip("/")
    assert [item.key for item in items] == [
        "in/a.jpg",
        absolute,
        "in/a.jpg",
        "in/gone.jpg",
        "../x.jpg",
        "in/folder.jpg",
    ]
    assert items[0].read() == items[1].read() == items[2].read() == DATA
    assert [reason(item) for item in items[3:]] == [
        "cannot be read: No such file or directory",
        "name leads out of the archive",
        "not a regular file",
    ]
    assert count_inputs(tmp_path / "list.txt") == 6


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
def test_a_tar_gives_its_photos(mode: str, tmp_path: Path) -> None:
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
    assert count_inputs(src) is None


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_torn_tar_gives_what_came_before_the_tear_and_then_a_reason(mode: str, tmp_path: Path) -> None:
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


def zipped(path: Path, *names: str, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.mkdir("folder.jpg")
        for name in names:
            archive.writestr(name, os.urandom(50) * 100)
    return path


def test_a_zip_gives_its_photos(tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "b.jpg", "a/c.png", "readme.md", "__MACOSX/._b.jpg", "../e.jpg")
    items = list(list_inputs(src))
    assert [item.key for item in items] == ["b.jpg", "a/c.png", "../e.jpg"]
    # Each is read while the archive is open, which is while the listing is iterated over.
    assert [len(item.read()) for item in list_inputs(src) if ".." not in item.key] == [5000, 5000]
    assert count_inputs(src) == 3


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_costs_only_itself(compression: int, tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "a.jpg", "b.jpg", compression=compression)
    data = bytearray(src.read_bytes())
    start = data.index(b"a.jpg") + 20
    data[start : start + 20] = bytes(byte ^ 0xFF for byte in data[start : start + 20])
    src.write_bytes(data)
    results = [reason(item) if item.key == "a.jpg" else item.read() for item in list_inputs(src)]
    assert str(results[0]).startswith("cannot be read from the zip: ")
    assert len(results[1]) == 5000


def test_an_encrypted_member_gets_its_reason(tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "a.jpg")
    data = bytearray(src.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says encrypted, in both headers
        at = data.rindex(signature)
        data[at + offset] |= 1
    src.write_bytes(data)
    reasons = [reason(item) for item in list_inputs(src)]
    assert len(reasons) == 1
    assert "encrypted" in reasons[0]


def test_a_source_that_is_not_there_or_no_archive_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        list_inputs(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SetupError, match="neither a folder nor a file"):
        list_inputs(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SetupError, match="symbolic links"):
        list_inputs(tmp_path / "loop")
    for bad in ("gone", "pipe", "loop"):
        with pytest.raises(SetupError):
            count_inputs(tmp_path / bad)


def test_a_name_that_is_not_utf8_is_listed_as_it_is(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(DATA)
    (item,) = list_inputs(tmp_path)
    assert os.fsencode(item.key) == b"caf\xe9.jpg"
    assert item.read() == DATA


def test_a_file_is_known_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    a, b = list_inputs(tmp_path)
    assert a.file_id() == b.file_id() is not None
    assert Input("k", "i", lambda: b"").file_id() is None
    assert Input("k", "i", lambda: b"", tmp_path / "gone").file_id() is None
