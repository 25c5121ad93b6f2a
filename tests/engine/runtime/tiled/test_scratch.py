"""Store rows in both kinds of scratch and read them through both views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.runtime.tiled.scratch import FileScratch, HalfView, MemoryScratch, QuarterView, Scratch

CPU = torch.device("cpu")
Maker = Callable[[int, int, torch.dtype], Scratch]


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    if request.param == "memory":
        return MemoryScratch
    return lambda rows, values, dtype: FileScratch(rows, values, dtype, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_rows_are_read_back(make: Maker, dtype: torch.dtype) -> None:
    rows = torch.randn(10, 7).to(dtype)
    with make(10, 7, dtype) as table:
        table.write(0, rows[:4])
        table.write(4, rows[4:])
        table.write(2, rows[5:6])
        got = table.read(1, 9).clone()
    assert got.dtype == dtype
    assert torch.equal(got, torch.cat((rows[1:2], rows[5:6], rows[3:9])))


def test_quarter_view_of_bands(make: Maker) -> None:
    image = torch.randn(1, 8, 6, 5).to(memory_format=torch.channels_last)
    with make(6, 40, torch.float32) as table:
        view = QuarterView(table, 6, 5, 4, CPU)
        view.write_all([image[:, :, :1], image[:, :, 1:]])
        bands = [band.clone() for band in view.bands()]
    assert [band.shape[2] for band in bands] == [4, 2]
    assert all(band.is_contiguous(memory_format=torch.channels_last) for band in bands)
    assert torch.equal(torch.cat(bands, dim=2), image)


def test_half_view_pairs_rows_of_any_bands(make: Maker) -> None:
    image = torch.randn(1, 4, 12, 10).to(memory_format=torch.channels_last)
    with make(6, 40, torch.float32) as even, make(6, 40, torch.float32) as odd:
        view = HalfView(even, odd, 6, 10, 2, CPU)
        view.write_all([image[:, :, :3], image[:, :, 3:4], image[:, :, 4:9], image[:, :, 9:]])
        bands = list(view.bands())
    assert [band.shape[2] for band in bands] == [4, 4, 4]
    assert torch.equal(torch.cat(bands, dim=2), image)


def test_the_file_has_no_name_and_its_full_size(tmp_path: Path) -> None:
    with FileScratch(10, 7, torch.float32, tmp_path) as table:
        assert list(tmp_path.iterdir()) == []
        assert table.read(9, 10).shape == (1, 7)
        with pytest.raises(OSError, match="truncated"):
            table.read(10, 11)
