"""Whole runs over an archive: the tree, the second run, and how a run may end."""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from engine.archive.config import ArchiveConfig
from engine.archive.convert import Summary, convert
from engine.archive.manifest import FOLDER, Manifest
from engine.archive.run import RunProgress
from engine.codec.formats import IMAGE_SUFFIXES
from engine.codec.kinds import RAW_SUFFIXES
from engine.config import DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.errors import SetupError, StopRun
from engine.model.card import Card
from engine.model.weights import Generator, save_generator
from engine.options import Options, Size
from engine.records import Failed, Outcome
from tests.images import bomb, flipped, photo, pixels

CONFIG = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)


def fill(src: Path) -> Path:
    """Make a small archive: a tree, a hidden file, other files, two formats that are not kept, a link loop."""
    files = {
        "a.jpg": photo(seed=1),
        "b/c/d.png": photo(33, 21, seed=2, format="PNG"),
        "b/e.gif": photo(seed=3, format="GIF"),
        "f.webp": photo(40, 30, seed=4, format="WEBP"),
        ".hidden.jpg": photo(),
        "b/notes.txt": b"notes",
    }
    for name, data in files.items():
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(data)
    (src / "b/loop").symlink_to(src)
    return src


RESULTS = {"a.jpg", "b/c/d.png", "b/e.png", "f.webp"}


def files(dst: Path) -> dict[str, bytes]:
    """Return the results by name, without the manifest's folder."""
    return {
        path.relative_to(dst).as_posix(): path.read_bytes()
        for path in sorted(dst.rglob("*"))
        if path.is_file() and FOLDER not in path.relative_to(dst).parts
    }


def counts(summary: Summary) -> tuple[int, int, int]:
    assert summary.images == summary.converted + summary.skipped + summary.failed
    assert len(summary.failures) == summary.failed
    return summary.converted, summary.skipped, summary.failed


def run(src: Path, dst: Path, model: Path | Generator, config: PipelineConfig = CONFIG) -> tuple[int, int, int]:
    return counts(convert(src, dst, model, config))


def test_the_tree_is_mirrored_and_a_second_run_does_nothing(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    assert run(src, dst, model_file) == (4, 0, 0)
    made = files(dst)
    assert set(made) == RESULTS
    for name, data in made.items():
        source = next(src.glob(f"{name.rsplit('.', 1)[0]}.*"))
        assert pixels(data).shape == pixels(source.read_bytes()).shape
        assert not np.array_equal(pixels(data), pixels(source.read_bytes()))
    times = {name: (dst / name).stat().st_mtime_ns for name in made}
    assert run(src, dst, model_file) == (0, 4, 0)
    assert {name: (dst / name).stat().st_mtime_ns for name in made} == times


def test_the_output_folder_may_lie_inside_the_source(tmp_path: Path, model_file: Path) -> None:
    src = fill(tmp_path / "src")
    for _ in range(2):
        convert(src, src / "out", model_file, CONFIG)
    assert set(files(src / "out")) == RESULTS


@pytest.mark.parametrize("kind", ["tar", "zip", "list"])
def test_a_tar_a_zip_and_a_list_have_the_results_of_the_folder(
    kind: str, tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src = fill(tmp_path / "src")
    (src / "b/loop").unlink()
    run(src, tmp_path / "from folder", model_file)
    if kind == "tar":
        with tarfile.open(tmp_path / "photos.tar", "w") as tar:
            tar.add(src, ".")
        container = tmp_path / "photos.tar"
    elif kind == "zip":
        container = tmp_path / "photos.zip"
        with zipfile.ZipFile(container, "w") as archive:
            for path in sorted(src.rglob("*")):
                archive.write(path, path.relative_to(src))
    else:
        monkeypatch.chdir(src)
        container = tmp_path / "list.txt"
        container.write_text("a.jpg\nb/c/d.png\nb/e.gif\nf.webp\n")
    assert run(container, tmp_path / "dst", model_file) == (4, 0, 0)
    assert files(tmp_path / "dst") == files(tmp_path / "from folder")
    assert run(container, tmp_path / "dst", model_file) == (0, 4, 0)


def test_one_photo_is_an_archive(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    assert run(tmp_path / "a.jpg", tmp_path / "dst", model_file) == (1, 0, 0)
    assert set(files(tmp_path / "dst")) == {"a.jpg"}


def test_bad_inputs_fail_alone_and_are_tried_again(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    bad = {
        "empty.jpg": b"",
        "words.jpg": b"These are words.",
        "cut.jpg": photo(200, 150)[:-2000],
        "cut.png": photo(200, 150, format="PNG")[:-3000],
        "flipped.png": flipped(photo(200, 150, format="PNG")),
        "bomb.png": bomb(),
    }
    for name, data in bad.items():
        (src / name).write_bytes(data)
    (src / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(src / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(src) + b"/caf\xe9.jpg")).write_bytes(photo())
    summary = convert(src, dst, model_file, CONFIG)
    assert counts(summary) == (4, 0, 9)
    reasons = {failure["path"]: failure["error"] for failure in summary.failures}
    assert {failure["stage"] for failure in summary.failures} == {"read", "inspect", "decode"}
    odd = {"gone.jpg", "pipe.jpg", "caf\\xe9.jpg"}
    assert set(reasons) == {"empty.jpg", "words.jpg", "cut.jpg", "cut.png", "flipped.png", "bomb.png", *odd}
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert set(files(dst)) == RESULTS
    with sqlite3.connect(dst / FOLDER / "manifest.sqlite") as manifest:
        kept = dict(manifest.execute("SELECT key, error FROM image WHERE state = 'failed'"))
    manifest.close()
    assert kept == reasons
    (src / "empty.jpg").write_bytes(photo())
    assert run(src, dst, model_file) == (1, 4, 8)


def test_every_input_of_a_shared_name_gets_a_result(tmp_path: Path, model_file: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    for name, format in (("IMG_1.bmp", "BMP"), ("IMG_1.gif", "GIF"), ("IMG_1.jpg", "JPEG"), ("IMG_1.png", "PNG")):
        (src / name).write_bytes(photo(format=format))
    config = replace(CONFIG, options=replace(CONFIG.options, format="jpeg"))
    summary = convert(src, tmp_path / "dst", model_file, config)
    assert counts(summary) == (4, 0, 0)
    assert set(files(tmp_path / "dst")) == {"IMG_1.jpg", "IMG_1.bmp.jpg", "IMG_1.gif.jpg", "IMG_1.png.jpg"}
    assert summary.renamed == {f"IMG_1.{kind}": f"IMG_1.{kind}.jpg" for kind in ("bmp", "gif", "png")}
    remark = "stored as IMG_1.bmp.jpg, because IMG_1.jpg is the result of IMG_1.jpg"
    assert {"path": "IMG_1.bmp", "remark": remark} in summary.remarks
    assert run(src, tmp_path / "dst", model_file, config) == (0, 4, 0)


CHANGES = {
    "quality": replace(CONFIG, encode=EncodeConfig(quality=50)),
    "size": replace(CONFIG, options=Options(size=Size.parse("32"))),
    "detail": replace(CONFIG, options=replace(CONFIG.options, detail="plain")),
    "precision": replace(CONFIG, generate=replace(CONFIG.generate, precision="bf16")),
    "damage": replace(CONFIG, decode=DecodeConfig(allow_damaged=True)),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_changed_settings_convert_everything_again(change: str, tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    run(src, dst, model_file)
    assert run(src, dst, model_file, CHANGES[change]) == (4, 0, 0)
    assert run(src, dst, model_file, CHANGES[change]) == (0, 4, 0)


def test_settings_that_do_not_touch_results_change_nothing(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    run(src, dst, model_file)
    for other in (
        replace(CONFIG, encode=EncodeConfig(workers=1, gpu_from_pixels=1000)),
        replace(CONFIG, decode=DecodeConfig(chunk_images=2)),
        replace(CONFIG, generate=replace(CONFIG.generate, backend="auto", expected_pixels=1)),
    ):
        assert run(src, dst, model_file, other) == (0, 4, 0)


def test_another_model_replaces_results_only_with_overwrite(
    tmp_path: Path, model_file: Path, generator: Generator
) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    run(src, dst, model_file)
    before = files(dst)
    other = tmp_path / "other.safetensors"
    save_generator(other, generator.module, Card(name="other"))
    with pytest.raises(SetupError, match="holds 4 results of the model tiny, which those of other would replace"):
        run(src, dst, other)
    assert files(dst) == before
    (src / "a.jpg").write_bytes(photo(seed=9))
    assert run(src, dst, model_file) == (1, 3, 0), "the refused run changes nothing for the first model"

    class StopAfterOne(Stopper):
        pass

    with pytest.raises(KeyboardInterrupt):
        convert(src, dst, other, CONFIG, archive=ArchiveConfig(overwrite=True), progress=StopAfterOne(1))
    converted, skipped, failed = run(src, dst, other)
    assert (converted + skipped, failed) == (4, 0), "a stopped replacement continues without --overwrite"


def test_a_changed_input_a_lost_result_and_a_cut_result_are_converted_again(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    run(src, dst, model_file)
    whole = files(dst)
    (src / "a.jpg").write_bytes(photo(seed=9))
    (dst / "b/c/d.png").unlink()
    (dst / "f.webp").write_bytes(b"cut")
    assert run(src, dst, model_file) == (3, 1, 0)
    changed = files(dst)
    assert {name for name in whole if whole[name] != changed[name]} == {"a.jpg"}


def test_batches_and_neighbours_do_not_change_a_byte(tmp_path: Path, model_file: Path) -> None:
    """Therefore an interrupted run ends like an undisturbed one."""
    src = tmp_path / "src"
    src.mkdir()
    for i in range(9):
        (src / f"{i}.jpg").write_bytes(photo(40 + i % 2, 30, seed=i))
    run(src, tmp_path / "together", model_file)
    for path in sorted(src.iterdir(), reverse=True):
        run(path, tmp_path / "alone", model_file)
    assert files(tmp_path / "together") == files(tmp_path / "alone")


def test_a_foreign_file_is_kept_without_overwrite(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    dst.mkdir()
    (dst / "a.jpg").write_bytes(b"precious")
    for expected in ((3, 0, 1), (0, 3, 1)):
        assert run(src, dst, model_file) == expected
        assert (dst / "a.jpg").read_bytes() == b"precious"
    assert counts(convert(src, dst, model_file, CONFIG, archive=ArchiveConfig(overwrite=True))) == (4, 0, 0)


@pytest.mark.parametrize("place", ["source is missing", "output is a file", "same folder", "model is missing"])
def test_a_run_that_cannot_start_leaves_nothing(place: str, tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    match place:
        case "source is missing":
            src = tmp_path / "nowhere"
        case "output is a file":
            dst.touch()
        case "same folder":
            dst = src
        case "model is missing":
            model_file = tmp_path / "no.safetensors"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SetupError) as caught:
        convert(src, dst, model_file, CONFIG)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_run_on_one_folder_at_once_is_refused(tmp_path: Path, model_file: Path) -> None:
    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    with Manifest(dst), pytest.raises(SetupError, match="Another run is writing"):
        run(src, dst, model_file)
    assert run(src, dst, model_file) == (4, 0, 0)


def many(src: Path, count: int = 60) -> Path:
    src.mkdir()
    for i in range(count):
        (src / f"{i:03}.jpg").write_bytes(photo(32, 24, seed=i))
    return src


class Stopper:
    """Does something after some images."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.seen = 0

    def __call__(self, outcome: Outcome | None, progress: RunProgress) -> None:
        self.seen += outcome is not None
        if self.seen == self.after:
            self.act()

    def act(self) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_continues_where_it_stopped(tmp_path: Path, model_file: Path) -> None:
    src = many(tmp_path / "src")
    run(src, tmp_path / "undisturbed", model_file)
    with pytest.raises(KeyboardInterrupt):
        convert(src, tmp_path / "dst", model_file, CONFIG, progress=Stopper(20))
    converted, skipped, failed = run(src, tmp_path / "dst", model_file)
    assert (converted + skipped, failed) == (60, 0)
    assert skipped >= 19
    assert files(tmp_path / "dst") == files(tmp_path / "undisturbed")


def test_a_vanished_output_folder_stops_the_run_and_its_manifest_stays_whole(tmp_path: Path, model_file: Path) -> None:
    """As when a disk is unplugged; the folder is not made again."""
    src, dst, away = many(tmp_path / "src"), tmp_path / "dst", tmp_path / "away"

    class Vanish(Stopper):
        def act(self) -> None:
            dst.rename(away)

    with pytest.raises(StopRun) as caught:
        convert(src, dst, model_file, CONFIG, progress=Vanish(10))
    assert "\n" not in str(caught.value)
    assert not dst.exists()
    with sqlite3.connect(away / FOLDER / "manifest.sqlite") as manifest:
        assert manifest.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    manifest.close()
    away.rename(dst)
    converted, skipped, failed = run(src, dst, model_file)
    assert (converted + skipped, failed) == (60, 0)
    assert len(files(dst)) == 60


def test_a_deleted_output_folder_stops_the_run(tmp_path: Path, model_file: Path) -> None:
    src, dst = many(tmp_path / "src"), tmp_path / "dst"

    class Delete(Stopper):
        def act(self) -> None:
            dst.rename(tmp_path / "gone")  # at once: files that are being written would keep a tree from being deleted

    with pytest.raises(StopRun):
        convert(src, dst, model_file, CONFIG, progress=Delete(10))


def test_progress_sees_every_image_once(tmp_path: Path, model_file: Path) -> None:
    src = fill(tmp_path / "src")
    (src / "empty.jpg").touch()
    seen: list[str] = []

    def note(outcome: Outcome | None, progress: RunProgress) -> None:
        if outcome is None:
            assert seen == []
        else:
            seen.append(f"{outcome.key} {'failed' if isinstance(outcome, Failed) else 'done'}")

    convert(src, tmp_path / "dst", model_file, CONFIG, progress=note)
    assert sorted(seen) == ["a.jpg done", "b/c/d.png done", "b/e.gif done", "empty.jpg failed", "f.webp done"]


def test_a_custom_translation_replaces_the_generator(tmp_path: Path, generator: Generator) -> None:
    def negative(pixels_NHWC: Tensor) -> Tensor:
        return 255 - pixels_NHWC

    src, dst = fill(tmp_path / "src"), tmp_path / "dst"
    summary = convert(src, dst, generator, CONFIG, translate=lambda _: negative)
    assert summary.backend == "given by the caller"
    png = pixels((src / "b/c/d.png").read_bytes())
    assert np.array_equal(pixels((dst / "b/c/d.png").read_bytes()), 255 - png)


def test_the_manifest_records_the_settings(tmp_path: Path, model_file: Path, generator: Generator) -> None:
    run(fill(tmp_path / "src"), tmp_path / "dst", model_file)
    with sqlite3.connect(tmp_path / "dst" / FOLDER / "manifest.sqlite") as manifest:
        ((settings,),) = manifest.execute("SELECT settings FROM run")
    manifest.close()
    assert json.loads(settings)["model"] == generator.sha256
    assert json.loads(settings)["size"] == "native"


def without_raw_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as where rawpy is not installed."""
    monkeypatch.setattr("engine.listing.inputs.IMAGE_SUFFIXES", IMAGE_SUFFIXES - RAW_SUFFIXES)
    monkeypatch.setattr("engine.listing.left_out.missing_extras", lambda: [("RAW", "raw")])


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_raw_reader(monkeypatch)
    src = fill(tmp_path / "src")
    for name in ("a.mov", "b.mov", "c.cr2", "a.xmp", "README"):
        (src / name).write_bytes(b"x")
    summary = convert(src, tmp_path / "dst", model_file, CONFIG)
    assert summary.left_out == {
        ".mov": 2, ".cr2": 1, ".xmp": 1, ".txt": 1, "no suffix": 1, "hidden": 1, "folders seen before/": 1,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["folder", "tar", "empty list"])
def test_a_source_without_photos_is_an_error_that_says_what_was_left_out(
    how: str, tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_raw_reader(monkeypatch)
    src = tmp_path / "src"
    src.mkdir()
    for name in ("a.cr2", "b.cr2", "c.mov"):
        (src / name).write_bytes(b"x")
    expected = r"no photo to translate in .*; left out: 2 \.cr2, 1 \.mov\. RAW files are read after pip .*raw\]'\.$"
    if how == "tar":
        with tarfile.open(tmp_path / "src.tar", "w") as tar:
            tar.add(src, ".")
        src = tmp_path / "src.tar"
    elif how == "empty list":
        src = tmp_path / "list.txt"
        src.write_text("\n")
        expected = "no photo to translate in"
    with pytest.raises(SetupError, match=expected):
        convert(src, tmp_path / "dst", model_file, CONFIG)
    assert not (tmp_path / "dst").exists()


def test_a_run_whose_backend_cannot_start_leaves_nothing(tmp_path: Path, model_file: Path) -> None:
    src = fill(tmp_path / "src")
    impossible = replace(CONFIG, generate=replace(CONFIG.generate, backend="tensorrt"))
    with pytest.raises(SetupError):
        convert(src, tmp_path / "dst", model_file, impossible)
    assert not (tmp_path / "dst").exists()


def test_memory_that_is_too_little_for_any_photo_is_refused_at_once(tmp_path: Path, model_file: Path) -> None:
    config = replace(CONFIG, generate=replace(CONFIG.generate, memory_bytes=1024))
    with pytest.raises(SetupError, match="--memory is too little: a photo of 16x16 pixels needs"):
        convert(fill(tmp_path / "src"), tmp_path / "dst", model_file, config)
    assert not (tmp_path / "dst").exists()


def test_a_zip_with_a_member_over_the_limit_converts_the_others(tmp_path: Path, model_file: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(3_000_000))
        archive.writestr("a.jpg", photo())
    summary = convert(
        tmp_path / "z.zip", tmp_path / "dst", model_file, CONFIG, archive=ArchiveConfig(max_bytes=1_000_000)
    )
    assert counts(summary) == (1, 0, 1)
    assert "over the limit" in summary.failures[0]["error"]


def test_one_photo_into_a_file(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    out = tmp_path / "new/out.png"
    assert run(tmp_path / "a.jpg", out, model_file) == (1, 0, 0)
    assert [path.name for path in out.parent.iterdir()] == ["out.png"]
    assert out.read_bytes().startswith(b"\x89PNG")
    made = out.read_bytes()
    with pytest.raises(SetupError, match="is there already; --overwrite replaces it"):
        run(tmp_path / "a.jpg", out, model_file)
    again = convert(tmp_path / "a.jpg", out, model_file, CONFIG, archive=ArchiveConfig(overwrite=True))
    assert (counts(again), out.read_bytes()) == ((1, 0, 0), made)


@pytest.mark.parametrize(
    ("output", "format", "complaint"),
    [
        ("a.jpg", "keep", "would replace the photo"),
        ("out.png", "webp", "--format webp does not fit"),
        ("out.bmp", "keep", "cannot be written"),
    ],
)
def test_a_file_that_cannot_be_the_result_is_refused(
    output: str, format: str, complaint: str, tmp_path: Path, model_file: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    config = replace(CONFIG, options=replace(CONFIG.options, format=format))
    with pytest.raises(SetupError, match=complaint):
        convert(tmp_path / "a.jpg", tmp_path / output, model_file, config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_results_may_have_a_suffix_and_a_template_for_second_names(tmp_path: Path, model_file: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.bmp").write_bytes(photo(format="BMP"))
    (src / "a.png").write_bytes(photo(format="PNG"))
    archive = ArchiveConfig(suffix="_winter", name="{stem} ({suffix}){ext}")
    for expected in ((2, 0, 0), (0, 2, 0)):
        assert counts(convert(src, tmp_path / "dst", model_file, CONFIG, archive=archive)) == expected
    assert set(files(tmp_path / "dst")) == {"a_winter.png", "a_winter (bmp).png"}


def test_include_and_exclude_choose_the_photos(tmp_path: Path, model_file: Path) -> None:
    archive = ArchiveConfig(include=("b", "*.jpg"), exclude=("*.gif",))
    summary = convert(fill(tmp_path / "src"), tmp_path / "dst", model_file, CONFIG, archive=archive)
    assert set(files(tmp_path / "dst")) == {"a.jpg", "b/c/d.png"}
    assert summary.left_out["excluded"] == 2


def test_a_photo_without_suffix_keeps_its_format(tmp_path: Path, model_file: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "IMG_1").write_bytes(photo())
    assert run(src, tmp_path / "dst", model_file) == (1, 0, 0)
    assert files(tmp_path / "dst")["IMG_1.jpg"].startswith(b"\xff\xd8")


def test_times_of_an_object_store_cannot_be_set(tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(SetupError, match="leave out --times"):
        convert(
            fill(tmp_path / "src"), "memory://times/out", model_file, CONFIG, archive=ArchiveConfig(keep_times=True)
        )


def test_a_local_url_is_a_path(tmp_path: Path, model_file: Path) -> None:
    src = fill(tmp_path / "a b")
    (src / "IMG_1").write_bytes(photo())
    summary = convert(src.as_uri(), (tmp_path / "dst").as_uri(), model_file, CONFIG)
    assert counts(summary) == (5, 0, 0)
    assert (summary.output, set(files(tmp_path / "dst"))) == (str(tmp_path / "dst"), RESULTS | {"IMG_1.jpg"})
