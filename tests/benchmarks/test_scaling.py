from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.scaling import archive


def test_archives_of_different_sizes_are_measured_and_run_again(tmp_path: Path) -> None:
    arguments = argparse.Namespace(counts=[3])

    (measured,) = archive(arguments, tmp_path)["archives"]

    assert measured["images"] == 3
    assert measured["images_per_s"] > 0
    assert measured["cpu_ms_per_image"] > 0
    assert measured["second_run_s"] > 0
    assert len(list((tmp_path / "out-3").glob("**/*.jpg"))) == 3
