"""Planned inputs are read in order, within limits, and each outcome is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.archive.manifest import ManifestEntry
from engine.archive.plan import PlannedInput
from engine.archive.source import ArchiveSource
from engine.listing import Input, list_inputs
from engine.options import Options
from engine.records import Failed, Record, Stored


def planned(src: Path) -> list[PlannedInput]:
    return [PlannedInput(item, item.key, "jpeg") for item in list_inputs(src)]


def source(
    inputs: list[PlannedInput],
    recorded: list[ManifestEntry] | None = None,
    *,
    max_bytes: int = 100,
    read_ahead: int = 1,
) -> ArchiveSource:
    entries = [] if recorded is None else recorded
    return ArchiveSource(inputs, entries.append, Options(), "recipe", max_bytes=max_bytes, read_ahead=read_ahead)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    for i in range(20):
        (tmp_path / f"{i:02}.jpg").write_bytes(bytes([i]) * 10)
    return tmp_path


@pytest.mark.parametrize("read_ahead", [1, 4])
def test_inputs_are_read_in_their_order_or_several_at_once_in_any(src: Path, read_ahead: int) -> None:
    records = list(source(planned(src), read_ahead=read_ahead).records())
    read = [(record.key, record.payload) for record in records if isinstance(record, Record)]
    expected = [(f"{i:02}.jpg", bytes([i]) * 10) for i in range(20)]
    assert (read if read_ahead == 1 else sorted(read)) == expected


def test_images_of_one_format_share_their_options(src: Path) -> None:
    inputs = planned(src)
    inputs[3] = PlannedInput(inputs[3].item, inputs[3].output, "png")
    options = [record.options for record in source(inputs).records() if isinstance(record, Record)]
    assert [one.format for one in options] == ["jpeg"] * 3 + ["png"] + ["jpeg"] * 16
    assert len({id(one) for one in options}) == 2


class Announced(Input):
    """An input whose header names a size, and which must not be read."""

    def read(self) -> bytes:
        raise AssertionError("must not be read")


def test_an_input_over_the_limit_fails_by_its_header_alone() -> None:
    huge = Announced(key="bomb.jpg", identity="", num_bytes=6 << 30)
    (failed,) = source([PlannedInput(huge, "bomb.jpg", "jpeg")], max_bytes=1 << 30).records()
    assert isinstance(failed, Failed)
    assert failed.stage == "read"
    assert failed.reason == "6,442,450,944 bytes are over the limit of 1,073,741,824 (--max-bytes raises it)"


class Unannounced(Input):
    """An input whose size is not known before it is read."""

    def read(self) -> bytes:
        return bytes(101)


def test_an_input_over_the_limit_fails_after_reading_where_no_header_names_its_size() -> None:
    item = Unannounced(key="a.jpg", identity="")
    (failed,) = source([PlannedInput(item, "a.jpg", "jpeg")]).records()
    assert isinstance(failed, Failed)
    assert "over the limit" in failed.reason


def test_a_planned_failure_is_passed_on_without_reading() -> None:
    item = Announced(key="a.jpg", identity="")
    (failed,) = source([PlannedInput(item, "", "jpeg", failure="its name is taken")]).records()
    assert isinstance(failed, Failed)
    assert failed.reason == "its name is taken"


def test_outcomes_are_recorded_with_the_remark_about_the_name(src: Path) -> None:
    recorded: list[ManifestEntry] = []
    first, second = planned(src)[:2]
    inputs = [PlannedInput(first.item, "other.jpg", "jpeg", remark="stored as other.jpg"), second]
    archive = source(inputs, recorded)
    one, other = archive.records()
    assert isinstance(one, Record)
    assert isinstance(other, Record)
    stored = Stored(location="other.jpg", num_bytes=3, width=1, height=1, notes=("first of 2 frames",))
    archive.acknowledge(one.replace(stored))
    archive.acknowledge(other.failed("decode", "torn"))
    assert [(entry.key, entry.state, entry.notes, entry.error) for entry in recorded] == [
        ("00.jpg", "done", ("first of 2 frames", "stored as other.jpg"), None),
        ("01.jpg", "failed", (), "torn"),
    ]
    assert recorded[0].identity == first.item.identity


def test_the_oldest_input_under_way_is_known_until_it_is_acknowledged(src: Path) -> None:
    archive = source(planned(src))
    assert archive.oldest_under_way() is None
    records = archive.records()
    first, second = next(records), next(records)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    oldest = archive.oldest_under_way()
    assert oldest is not None
    assert oldest[0] == "00.jpg"
    assert oldest[1] >= 0
    archive.acknowledge(first.failed("decode", "torn"))
    oldest = archive.oldest_under_way()
    assert oldest is not None
    assert oldest[0] == "01.jpg"
