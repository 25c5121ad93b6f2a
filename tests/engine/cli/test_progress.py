"""Progress line: smoothed rate, remaining time by pixels, and the name of a slow image."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from engine.archive.run import RunProgress
from engine.archive.source import ArchiveOrigin
from engine.cli.convert import RunDisplay
from engine.cli.progress import SLOW_S, ProgressLine, SmoothedRate
from engine.options import Options
from engine.records import Failed, Record, Stored


def test_a_steady_rate_is_estimated_from_the_start() -> None:
    rate = SmoothedRate(smoothing_s=20)
    assert rate.per_second(0) is None
    for i in range(200):
        rate.add(4, i * 2.0)
        if i:
            assert rate.per_second(i * 2.0) == pytest.approx(2.0, rel=0.11)


def test_the_time_before_the_first_image_does_not_count() -> None:
    rate = SmoothedRate()
    for second in (100.0, 101.0, 102.0):
        rate.add(1, second)
    assert rate.per_second(102.0) == pytest.approx(1.0, rel=0.1)


def test_a_rate_follows_changes_and_falls_while_no_image_is_finished() -> None:
    rate = SmoothedRate(smoothing_s=10)
    for i in range(100):
        rate.add(10, float(i))
    for i in range(100, 160):
        rate.add(1, float(i))
    assert rate.per_second(159.0) == pytest.approx(1.0, rel=0.2)
    later = rate.per_second(180.0)
    assert later is not None
    assert later < 0.2


def line(total: int | None = None) -> tuple[ProgressLine, io.StringIO]:
    shown = io.StringIO()
    return ProgressLine("converting", total, Console(file=shown, force_terminal=True, width=200)), shown


def test_images_of_earlier_runs_are_counted_at_once_but_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("engine.cli.progress.time.monotonic", lambda: now_s[0])
    progress, shown = line()
    with progress:
        progress.begin(1010, 1000)
        assert progress.status() == ""
        for i in range(1, 6):
            now_s[0] = 2.0 * i
            progress.show(1000 + i, 0)
        an_image, left = progress.status().split(", ")
        assert float(an_image.removesuffix(" s an image")) == pytest.approx(2.0, abs=0.3)
        assert left in ("0:00:09 left", "0:00:10 left", "0:00:11 left")
    assert "1005/1010" in shown.getvalue()


def test_the_remaining_time_is_estimated_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a large photo at the end, the number of images would give a tenth of the time."""
    now_s = [0.0]
    monkeypatch.setattr("engine.cli.progress.time.monotonic", lambda: now_s[0])
    progress, _ = line()
    progress.begin(11, 0)
    for i in range(1, 11):
        now_s[0] = float(i)
        progress.show(i, 0, work=1e6, work_left=100e6 - (i - 10) * 1e6)
    left = progress.status().split(", ")[1]
    minutes, seconds = left.removesuffix(" left").split(":")[1:]
    assert 60 * int(minutes) + int(seconds) == pytest.approx(100, abs=15)


def test_an_image_that_takes_long_is_named() -> None:
    progress, _ = line()
    under_way = [("panorama.tif", SLOW_S - 1)]
    progress.begin(3, 0, lambda: under_way[0])
    assert progress.status() == ""
    under_way[0] = ("panorama.tif", 83.4)
    assert progress.status() == "panorama.tif: 83 s so far"


def test_without_a_terminal_no_progress_is_shown() -> None:
    shown = io.StringIO()
    with ProgressLine("converting", 3, Console(file=shown)) as progress:
        progress.show(1, 0)
    assert shown.getvalue() == ""


def test_remaining_pixels_are_estimated_by_remaining_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, float | None, float | None]] = []
    progress, _ = line()

    def show(ended: int, failed: int, *, work: float | None = None, work_left: float | None = None) -> None:
        seen.append((ended, failed, work, work_left))

    monkeypatch.setattr(progress, "show", show)
    display = RunDisplay(progress, None)
    run = RunProgress(num_inputs=5, num_skipped=2, num_bytes=1000)
    display(None, run)
    stored = Stored(location="a", num_bytes=1, width=40, height=50)
    origin = ArchiveOrigin(identity="", num_bytes=200)
    display(Record(key="a", payload=stored, options=Options(), origin=origin), run)
    display(Failed(key="b", stage="decode", reason="torn", origin=ArchiveOrigin(identity="", num_bytes=300)), run)
    assert seen == [(3, 0, 2000, 8000.0), (4, 1, 0, 5000.0)]
