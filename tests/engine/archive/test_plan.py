"""Which inputs a run translates, which it skips, and under which names results are stored."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.archive.config import ArchiveConfig
from engine.archive.manifest import Manifest
from engine.archive.plan import make_plan
from engine.archive.sink import ArchiveSink
from engine.archive.source import ArchiveSource
from engine.errors import SetupError
from engine.listing import list_inputs, printable
from engine.options import Options
from engine.records import Failed, Stored


class Archive:
    """A folder of inputs and an output folder, with short ways to run over them."""

    def __init__(self, root: Path) -> None:
        self.src, self.dst = root / "src", root / "dst"
        self.src.mkdir()

    def add(self, *names: str) -> None:
        for name in names:
            (self.src / name).parent.mkdir(parents=True, exist_ok=True)
            (self.src / name).write_bytes(name.encode())

    def run(
        self,
        *,
        recipe: str = "r",
        format: str = "keep",
        overwrite: bool = False,
        src: Path | None = None,
        source_name: str = "here",
    ) -> dict[str, str]:
        """Store each input as its own result; return each key's result name or failure, and the number `skipped`."""
        given: dict[str, str] = {}
        options, config = Options(format=format), ArchiveConfig(overwrite=overwrite)
        with Manifest(self.dst) as manifest:
            inventory = list_inputs(src or self.src, self.dst)
            earlier, sink = manifest.earlier_runs(), ArchiveSink(self.dst)
            plan = make_plan(inventory, earlier, sink, options, recipe, config, source=source_name)
            manifest.start_run(json.dumps({"source": source_name}), recipe)
            source = ArchiveSource(plan.todo, manifest.record, options, recipe, max_bytes=config.max_bytes)
            for record in source.records():
                assert record is not None
                if isinstance(record, Failed):
                    given[record.key] = record.reason
                    source.acknowledge(record)
                    continue
                target = self.dst / record.origin.output
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(record.payload)
                stored = Stored(location=record.origin.output, num_bytes=len(record.payload), width=1, height=1)
                source.acknowledge(record.replace(stored))
                given[record.key] = record.origin.output
            given["skipped"] = str(plan.num_skipped)
        return given


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_what_is_done_is_skipped(archive: Archive) -> None:
    archive.add("a.jpg", "b/c.gif")
    assert archive.run() == {"a.jpg": "a.jpg", "b/c.gif": "b/c.png", "skipped": "0"}
    assert archive.run() == {"skipped": "2"}
    archive.add("d.jpg")
    assert archive.run() == {"d.jpg": "d.jpg", "skipped": "2"}


def test_what_changed_is_converted_again(archive: Archive) -> None:
    archive.add("input.jpg", "output.jpg", "gone.jpg", "same.jpg")
    archive.run()
    (archive.src / "input.jpg").write_bytes(b"another photo")
    (archive.dst / "output.jpg").write_bytes(b"cut")
    (archive.dst / "gone.jpg").unlink()
    assert archive.run() == {**{key: key for key in ("input.jpg", "output.jpg", "gone.jpg")}, "skipped": "1"}


def test_another_recipe_or_format_converts_everything_again(archive: Archive) -> None:
    archive.add("a.jpg")
    archive.run()
    assert archive.run(recipe="s") == {"a.jpg": "a.jpg", "skipped": "0"}
    assert archive.run(recipe="s", format="png") == {"a.jpg": "a.png", "skipped": "0"}
    assert archive.run(recipe="s", format="png", overwrite=True) == {"a.jpg": "a.png", "skipped": "0"}
    assert archive.run(recipe="s", format="png") == {"skipped": "1"}


def test_a_failed_input_is_tried_again(archive: Archive) -> None:
    archive.add("a.jpg")
    (archive.src / "b.jpg").symlink_to("nowhere")
    assert archive.run()["b.jpg"] == "cannot be read: No such file or directory"
    (archive.src / "b.jpg").unlink()
    archive.add("b.jpg")
    assert archive.run() == {"b.jpg": "b.jpg", "skipped": "1"}


def test_inputs_that_share_a_name_get_one_each_and_keep_it(archive: Archive) -> None:
    """A file whose own name it is goes first; an owner keeps its name in later runs."""
    archive.add("a.bmp", "a.gif", "a.png")
    names = {"a.bmp": "a.bmp.png", "a.gif": "a.gif.png", "a.png": "a.png"}
    assert archive.run() == {**names, "skipped": "0"}
    assert archive.run() == {"skipped": "3"}
    assert {key: (archive.dst / name).read_bytes() for key, name in names.items()} == {k: k.encode() for k in names}
    (archive.src / "a.png").unlink()
    assert archive.run() == {"skipped": "2"}


def test_an_input_that_joins_later_does_not_take_the_name_of_a_finished_result(archive: Archive) -> None:
    archive.add("x.bmp")
    assert archive.run() == {"x.bmp": "x.png", "skipped": "0"}
    archive.add("x.png", "x.gif")
    assert archive.run() == {"x.png": "x.png.png", "x.gif": "x.gif.png", "skipped": "1"}
    assert (archive.dst / "x.png").read_bytes() == b"x.bmp"


def test_the_result_of_an_input_that_is_gone_keeps_its_name(archive: Archive) -> None:
    archive.add("x.bmp")
    archive.run()
    (archive.src / "x.bmp").unlink()
    archive.add("x.png")
    assert archive.run() == {"x.png": "x.png.png", "skipped": "0"}
    assert (archive.dst / "x.png").read_bytes() == b"x.bmp"
    assert archive.run(overwrite=True)["x.png"] in ("x.png", "x.png.png")


def test_results_of_another_source_are_not_replaced(archive: Archive, tmp_path: Path) -> None:
    archive.add("a.jpg", "b.jpg")
    archive.run()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"another photo")
    with pytest.raises(SetupError, match=r'another source, "here", of which 1 would be replaced, such as "a.jpg"'):
        archive.run(src=other, source_name="there")
    assert (archive.dst / "a.jpg").read_bytes() == b"a.jpg"
    assert archive.run(src=other, source_name="there", overwrite=True) == {"a.jpg": "a.jpg", "skipped": "0"}


def test_an_archive_that_was_moved_is_still_done(archive: Archive, tmp_path: Path) -> None:
    archive.add("a.jpg")
    archive.run()
    archive.src.rename(tmp_path / "moved")
    assert archive.run(src=tmp_path / "moved", source_name="there") == {"skipped": "1"}


def test_an_input_that_a_list_names_twice_is_done_once(archive: Archive, tmp_path: Path) -> None:
    archive.add("a.jpg")
    (tmp_path / "list.txt").write_text(f"{archive.src}/a.jpg\n{archive.src}/a.jpg\n")
    key = f"{archive.src}/a.jpg".lstrip("/")
    assert archive.run(src=tmp_path / "list.txt") == {key: key, "skipped": "0"}
    assert archive.run(src=tmp_path / "list.txt") == {"skipped": "1"}


def foreign(archive: Archive, name: str) -> Path:
    """Put a file into the output folder, certainly before any run."""
    archive.dst.mkdir(exist_ok=True)
    path = archive.dst / name
    path.write_bytes(b"precious")
    return path


def test_a_file_that_was_there_before_stays_on_every_run(archive: Archive) -> None:
    """Also on the second run, when the manifest has the input as failed."""
    path = foreign(archive, "a.jpg")
    os.sync()
    archive.add("a.jpg", "b.jpg")
    for _ in range(3):
        assert archive.run()["a.jpg"] == "a.jpg was there before the first run; --overwrite replaces it"
        assert path.read_bytes() == b"precious"
    assert archive.run(overwrite=True)["a.jpg"] == "a.jpg"
    assert path.read_bytes() == b"a.jpg"


def test_a_foreign_file_under_the_name_of_another_format_stays(archive: Archive) -> None:
    path = foreign(archive, "a.png")
    archive.add("a.jpg")
    assert archive.run()["a.jpg"] == "a.jpg"
    assert "was there before" in archive.run(format="png")["a.jpg"]
    assert path.read_bytes() == b"precious"


def test_a_result_that_was_stored_but_not_recorded_is_converted_again(archive: Archive) -> None:
    """As after a crash between the two."""
    archive.add("a.jpg", "b.jpg")
    archive.run()
    with Manifest(archive.dst) as manifest:
        manifest._writer.execute("DELETE FROM image WHERE key = 'a.jpg'")
        manifest._writer.commit()
    assert archive.run() == {"a.jpg": "a.jpg", "skipped": "1"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_photo_is_never_replaced_by_its_own_result(overwrite: bool, archive: Archive) -> None:
    """Given a single photo in the output folder itself, or one that a link of the archive leads to."""
    path = foreign(archive, "a.jpg")
    (archive.src / "a.jpg").symlink_to(path)
    for src in (path, archive.src):
        assert archive.run(src=src, overwrite=overwrite)["a.jpg"].startswith("its result would replace the photo")
    assert path.read_bytes() == b"precious"


def test_a_link_in_the_output_folder_to_a_photo_is_not_the_photo(archive: Archive) -> None:
    archive.add("a.jpg")
    archive.dst.mkdir()
    (archive.dst / "a.jpg").symlink_to(archive.src / "a.jpg")
    found = ArchiveSink(archive.dst).find("a.jpg")
    assert found is not None
    (item,) = list_inputs(archive.src)
    assert found.file_id != item.file_id()


def test_a_name_that_is_not_utf8_fails_alone_and_is_shown_readably(archive: Archive) -> None:
    archive.add("a.jpg")
    Path(os.fsdecode(os.fsencode(archive.src) + b"/caf\xe9.jpg")).write_bytes(b"x")
    given = archive.run()
    assert given["a.jpg"] == "a.jpg"
    assert given["caf\\xe9.jpg"].startswith("name is not UTF-8")
    assert printable("café.jpg") == "café.jpg"
