"""The report of a real run: which photos, which numbers, which failures."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import pytest
from PIL import Image

from engine import Options, PipelineConfig, Size, Summary, convert
from engine.archive.report.run import SAMPLE_PHOTOS
from engine.archive.run import RunProgress
from engine.errors import SetupError, StopRun
from engine.model.weights import Generator
from engine.records import Outcome, Record
from tests.images import encoded, photo, picture


def run(src: Path, dst: Path | str, generator: Generator, **options: Any) -> Summary:
    config = PipelineConfig(options=Options(size=Size.parse("32"), **options.pop("per_image", {})))
    return convert(src, dst, generator, config, translate=lambda _: lambda x: 255 - x, **options)


def archive(root: Path, photos: int = 3) -> Path:
    root.mkdir()
    for number in range(photos):
        (root / f"{number:03d}.jpg").write_bytes(photo(80, 60, seed=number))
    (root / "broken.jpg").write_bytes(photo(300, 200)[:-500])
    (root / "moving.gif").write_bytes(encoded(picture(), "GIF", save_all=True, append_images=[picture(seed=4)]))
    return root


def shown_photos(page: str) -> dict[str, dict[str, Any]]:
    blocks = re.findall(r'<script type="application/json" class="pair">(.*?)</script>', page)
    return {photo["name"]: photo for photo in map(json.loads, blocks)}


def words(page: str) -> str:
    page = re.sub(r"<(script|style|template)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def pixels(block: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    with Image.open(io.BytesIO(base64.b64decode(block))) as image:
        return np.asarray(image).astype(np.int16)


def test_without_report_there_is_no_page(tmp_path: Path, generator: Generator) -> None:
    assert run(archive(tmp_path / "in"), tmp_path / "out", generator).report is None
    assert not (tmp_path / "out" / "report.html").exists()


def test_the_page_shows_the_run(tmp_path: Path, generator: Generator) -> None:
    summary = run(archive(tmp_path / "in"), tmp_path / "out", generator, report="sample")
    assert summary.report == str(tmp_path / "out" / "report.html")
    page = Path(summary.report).read_text()
    text = words(page)
    assert "4 photos, summer to winter" in text
    assert "Translated 4 Failed 1" in text
    assert f"From {tmp_path / 'in'} to {tmp_path / 'out'}" in text
    assert "broken.jpg decode" in text
    assert "moving.gif first of 2 frames" in text
    assert "size 32" in text
    assert "name tiny" in text
    assert set(shown_photos(page)) == {"000.jpg", "001.jpg", "002.jpg", "moving.gif"}


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), StopRun("The disk is gone.")])
def test_a_run_that_is_stopped_leaves_a_page_of_what_is_done(
    reason: BaseException, tmp_path: Path, generator: Generator
) -> None:
    def stop(outcome: Outcome | None, progress: RunProgress) -> None:
        if isinstance(outcome, Record):
            raise reason

    with pytest.raises(type(reason)):
        run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all", progress=stop)

    text = words((tmp_path / "out" / "report.html").read_text())
    assert "1 photo, summer to winter" in text
    assert "stopped before its end" in text


def test_photos_are_shown_before_and_after(tmp_path: Path, generator: Generator) -> None:
    run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all")
    shown = shown_photos((tmp_path / "out" / "report.html").read_text())["001.jpg"]
    assert (shown["width"], shown["height"]) == (43, 32)
    before, after = pixels(shown["before"]), pixels(shown["after"])
    assert before.shape == after.shape == (32, 43, 3)
    expected = np.asarray(picture(80, 60, seed=1).resize((43, 32))).astype(np.int16)
    assert np.abs(before - expected).mean() < 8
    assert np.abs(after - (255 - before)).mean() < 8


def test_with_detail_both_are_shown_at_the_photos_own_size(tmp_path: Path, generator: Generator) -> None:
    run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all", per_image={"detail": "guided"})
    shown = shown_photos((tmp_path / "out" / "report.html").read_text())["001.jpg"]
    assert pixels(shown["before"]).shape == pixels(shown["after"]).shape == (60, 80, 3)


def test_a_sample_of_many_is_the_same_every_time(tmp_path: Path, generator: Generator) -> None:
    archive(tmp_path / "in", photos=40)
    first = run(tmp_path / "in", tmp_path / "one", generator, report="sample")
    second = run(tmp_path / "in", tmp_path / "two", generator, report="sample")
    pages = [Path(str(summary.report)).read_text() for summary in (first, second)]
    assert len(shown_photos(pages[0])) == SAMPLE_PHOTOS
    assert shown_photos(pages[0]) == shown_photos(pages[1])
    assert f"{SAMPLE_PHOTOS} of 41 photos." in words(pages[0])


def test_a_second_run_shows_the_whole_archive(tmp_path: Path, generator: Generator) -> None:
    """Photos that were translated before, with or without a page, are shown as if this run had translated them."""
    run(archive(tmp_path / "in"), tmp_path / "out", generator)
    (tmp_path / "in" / "new.jpg").write_bytes(photo(seed=9))
    page = Path(str(run(tmp_path / "in", tmp_path / "out", generator, report="all").report)).read_text()
    assert "5 photos, summer to winter" in words(page)
    assert "Translated 5 Failed 1" in words(page)
    assert "In this run 1" in words(page)
    assert "moving.gif first of 2 frames" in words(page), "remarks of the first run"
    shown = shown_photos(page)
    assert set(shown) == {"000.jpg", "001.jpg", "002.jpg", "moving.gif", "new.jpg"}

    other = run(tmp_path / "in", tmp_path / "in one run", generator, report="all")
    at_once = shown_photos(Path(str(other.report)).read_text())
    for name in shown:
        for side in ("before", "after"):
            seen, expected = pixels(shown[name][side]), pixels(at_once[name][side])
            if side == "before":  # shown at working size by the run that translated it
                seen = np.asarray(Image.fromarray(seen.astype(np.uint8)).resize(expected.shape[1::-1]), dtype=np.int16)
            assert np.abs(seen - expected).mean() < 8, (name, side)


def test_a_run_with_nothing_to_do_never_makes_the_page_emptier(tmp_path: Path, generator: Generator) -> None:
    first = run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all")
    before = Path(str(first.report)).read_text()
    again = run(tmp_path / "in", tmp_path / "out", generator, report="all")
    assert (again.converted, again.failed) == (0, 1)
    after = Path(str(again.report)).read_text()
    assert shown_photos(after) == shown_photos(before)
    for text in ("4 photos, summer to winter", "broken.jpg decode", "moving.gif first of 2 frames"):
        assert text in words(after)
    assert "every photo was converted" not in words(after)


def test_the_page_of_a_resumed_run_is_that_of_an_undisturbed_one(tmp_path: Path, generator: Generator) -> None:
    def stop(outcome: Outcome | None, progress: RunProgress) -> None:
        if isinstance(outcome, Record):
            raise KeyboardInterrupt

    archive(tmp_path / "in", photos=12)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", generator, report="all", progress=stop)
    assert "Not reached" in words((tmp_path / "out/report.html").read_text())
    resumed = run(tmp_path / "in", tmp_path / "out", generator, report="all")
    undisturbed = run(tmp_path / "in", tmp_path / "other", generator, report="all")
    pages = [shown_photos(Path(str(summary.report)).read_text()) for summary in (resumed, undisturbed)]
    assert set(pages[0]) == set(pages[1])
    assert len(pages[0]) == 13


def test_photos_link_to_their_full_size_files(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "in/a b").mkdir(parents=True)
    (tmp_path / "in/a b/50%#1.png").write_bytes(photo(format="PNG"))
    page = Path(str(run(tmp_path / "in", tmp_path / "out", generator, report="all").report))
    shown = shown_photos(page.read_text())["a b/50%#1.png"]
    assert (page.parent / unquote(shown["result"])).read_bytes().startswith(b"\x89PNG")
    assert Path(unquote(urlsplit(shown["original"]).path)) == tmp_path / "in/a b/50%#1.png"
    assert "#" not in shown["result"]


def test_a_photo_that_is_not_in_the_archive_any_more_is_not_shown(tmp_path: Path, generator: Generator) -> None:
    run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all")
    (tmp_path / "in/001.jpg").unlink()
    page = Path(str(run(tmp_path / "in", tmp_path / "out", generator, report="all").report)).read_text()
    assert set(shown_photos(page)) == {"000.jpg", "002.jpg", "moving.gif"}
    assert "3 photos, summer to winter" in words(page)


def test_kinds_that_are_left_out_are_listed(tmp_path: Path, generator: Generator) -> None:
    (archive(tmp_path / "in") / "film.mov").write_bytes(b"x")
    page = Path(str(run(tmp_path / "in", tmp_path / "out", generator, report="sample").report)).read_text()
    assert ".mov 1" in words(page)


def test_translucent_photos_are_shown_on_white(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "in").mkdir()
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    (tmp_path / "in" / "a.png").write_bytes(encoded(image, "PNG"))
    page = Path(str(run(tmp_path / "in", tmp_path / "out", generator, report="all").report)).read_text()
    shown = shown_photos(page)["a.png"]
    assert pixels(shown["before"]).min() > 250
    assert pixels(shown["after"]).min() > 250


def test_the_page_is_written_to_an_object_store(tmp_path: Path, generator: Generator) -> None:
    summary = run(archive(tmp_path / "in"), f"memory://{tmp_path.name}/out", generator, report="all")
    assert summary.report == f"memory://{tmp_path.name}/out/report.html"
    page = fsspec.filesystem("memory").cat_file(f"/{tmp_path.name}/out/report.html").decode()
    assert "4 photos, summer to winter" in words(page)


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(StopRun, match="report cannot be written"):
        run(archive(tmp_path / "in"), tmp_path / "out", generator, report="all")
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3, "the photos are there all the same"


def test_the_page_of_a_tar_is_beside_it(tmp_path: Path, generator: Generator) -> None:
    summary = run(archive(tmp_path / "in"), tmp_path / "out.tar", generator, report="all")
    assert summary.report == str(tmp_path / "out.report.html")
    shown = shown_photos(Path(summary.report).read_text())
    assert set(shown) == {"000.jpg", "001.jpg", "002.jpg", "moving.gif"}
    assert {photo["result"] for photo in shown.values()} == {None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.report.html", "out.tar"]


def test_a_page_for_a_single_file_is_refused(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    with pytest.raises(SetupError, match="--report needs a folder"):
        run(tmp_path / "a.jpg", tmp_path / "out.jpg", generator, report="all")
