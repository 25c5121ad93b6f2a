"""A tar as output: members in order, shards of limited size, whole or not there."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine.archive.config import ArchiveConfig
from engine.archive.convert import Summary, convert
from engine.errors import SetupError
from tests.engine.archive.test_convert import CONFIG, Stopper, files, many
from tests.images import photo


def to_tar(src: Path, dst: Path, model: Path, **options: object) -> Summary:
    return convert(src, dst, model, CONFIG, archive=replace(ArchiveConfig(), **options))  # type: ignore[arg-type]


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_a_tar_holds_what_a_folder_would_in_the_order_of_the_inputs(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src", 9)
    (src / "broken.jpg").write_bytes(b"words")
    convert(src, tmp_path / "folder", model_file, CONFIG)
    summary = to_tar(src, tmp_path / "out.tar", model_file)
    assert (summary.converted, summary.failed) == (9, 1)
    assert members(tmp_path / "out.tar") == files(tmp_path / "folder")
    assert list(members(tmp_path / "out.tar")) == [f"{i:03}.jpg" for i in range(9)]
    assert {path.name for path in tmp_path.iterdir()} == {"src", "folder", "out.tar"}


def test_the_same_archive_gives_the_same_tar(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src", 3)
    for name in ("one.tar", "two.tar"):
        to_tar(src, tmp_path / name, model_file, keep_times=True)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_shards_stay_below_their_size_and_hold_everything(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src", 20)
    (src / "large.jpg").write_bytes(photo(400, 300, quality=95))
    convert(src, tmp_path / "folder", model_file, CONFIG)
    limit = 20_480
    summary = to_tar(src, tmp_path / "out.tar", model_file, shard_bytes=limit)
    shards = sorted(tmp_path.glob("out-*.tar"))
    assert [path.name for path in shards] == [f"out-{i:05}.tar" for i in range(len(shards))]
    assert len(shards) > 2
    assert summary.output == f"{shards[0]} to {shards[-1].name}"
    assert not (tmp_path / "out.tar").exists()
    together: dict[str, bytes] = {}
    for shard in shards:
        held = members(shard)
        assert shard.stat().st_size <= limit or list(held) == ["large.jpg"]
        together |= held
    assert together == files(tmp_path / "folder")
    assert list(together) == sorted(together)


def test_a_stopped_run_continues_and_no_tar_is_seen_before_it_is_whole(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src", 40)
    with pytest.raises(KeyboardInterrupt):
        convert(src, tmp_path / "out.tar", model_file, CONFIG, progress=Stopper(10))
    assert not (tmp_path / "out.tar").exists()
    summary = to_tar(src, tmp_path / "out.tar", model_file)
    assert summary.skipped >= 9
    assert summary.converted + summary.skipped == 40
    assert len(members(tmp_path / "out.tar")) == 40


def test_an_existing_tar_is_replaced_only_with_overwrite(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src", 3)
    (tmp_path / "out.tar").write_bytes(b"precious")
    with pytest.raises(SetupError, match="is there already"):
        to_tar(src, tmp_path / "out.tar", model_file)
    assert (tmp_path / "out.tar").read_bytes() == b"precious"
    to_tar(src, tmp_path / "out.tar", model_file, overwrite=True)
    assert len(members(tmp_path / "out.tar")) == 3


def test_shards_of_a_folder_are_refused(tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(SetupError, match=r"does not end with \.tar"):
        to_tar(many(tmp_path / "src", 1), tmp_path / "out", model_file, shard_bytes=1000)
