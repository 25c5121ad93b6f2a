from __future__ import annotations

import copy
import io

import pytest
from rich.console import Console, RenderableType

from engine.bench.document import Document
from engine.bench.table import comparison, in_words, number, summary
from engine.bench.timing import Spread


def printed(table: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=140).print(table)
    return output.getvalue()


def test_the_summary_shows_ceilings_stages_and_the_run(measured: Document) -> None:
    text = printed(summary(measured))

    for word in ("memory copy", "eager fp32, batch 1", "decode alone", "files to files", "limited by", "peak memory"):
        assert word in text
    assert "tiny photos, 96x64" in text


def test_a_run_that_cannot_be_trusted_is_marked(document: Document) -> None:
    document["noise"] = {**document["noise"], "trusted": False, "reasons": ["other processes took 1.5 of 2 cores"]}

    assert "Too noisy to trust: other processes took 1.5 of 2 cores." in printed(summary(document))


def test_energy_and_gpu_are_shown_where_they_were_measured(document: Document) -> None:
    run = document["workloads"][0]["end_to_end"]
    run["joules_per_image"] = {"nvml": Spread((0.5, 0.51)).to_document()}
    run["gpu_use"] = Spread((0.9,)).to_document()
    run["peak_gpu_bytes"] = Spread((2e9,)).to_document()

    text = printed(summary(document))

    assert "J/image (nvml)" in text
    assert "GPU 90%" in text
    assert "GPU memory 2,000 MB" in text


def test_a_comparison_marks_a_change_and_names_what_differs(document: Document) -> None:
    faster = copy.deepcopy(document)
    faster["machine"]["cores"] = 64
    run = faster["workloads"][0]["end_to_end"]
    run["images_per_s"] = Spread.from_document(run["images_per_s"]).scaled(100).to_document()

    text = printed(comparison(document, faster, ("old", "new")))

    assert "better" in text
    assert "machine: cores" in text
    assert "old" in text
    assert "new" in text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (99.44, "99.4"), (0.01234, "0.0123"), (1.0, "1"), (0.0, "0")]
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_noisy_measurement_is_marked() -> None:
    assert in_words(Spread((1.0, 1.1))) == "1.05 (1 to 1.1)"
    assert in_words(Spread((1.0, 2.0))).endswith(" ~")
