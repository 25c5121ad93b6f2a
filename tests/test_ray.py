"""`solstice.ray.Translate` on batches as Ray Data passes them; it needs no Ray itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.archive.convert import convert
from engine.config import GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.images import Translator
from engine.model.weights import Generator
from engine.options import Options, Size
from solstice.ray import Translate
from tests.images import photo, picture

CONFIG = PipelineConfig(generate=GenerateConfig(backend="eager", device="cpu"))


def objects(*items: Any) -> NDArray[Any]:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


@pytest.fixture(scope="module")
def translate(generator: Generator) -> Translate:
    return Translate(generator, size="native", config=CONFIG)


def test_encoded_images_become_the_files_of_convert_and_bad_ones_rows_with_a_reason(
    generator: Generator, translate: Translate, tmp_path: Path
) -> None:
    files = {"a.jpg": photo(48, 40, 1), "b.png": photo(32, 32, 2, format="PNG"), "c.jpg": photo(200, 150)[:-2000]}
    src = tmp_path / "src"
    src.mkdir()
    for name, data in files.items():
        (src / name).write_bytes(data)
    convert(
        src,
        tmp_path / "dst",
        generator,
        PipelineConfig(options=Options(size=Size.parse("native")), generate=CONFIG.generate),
    )
    batch = {"path": objects(*files, "d", "e"), "image": objects(*files.values(), b"no image", None)}
    result = translate(batch)
    assert list(result) == ["path", "image", "translated", "error"]
    assert result["path"] is batch["path"]
    made = dict(zip(files, result["translated"][:3], strict=True))
    assert made == {
        "a.jpg": (tmp_path / "dst/a.jpg").read_bytes(),
        "b.png": (tmp_path / "dst/b.png").read_bytes(),
        "c.jpg": b"",
    }
    assert list(result["error"][:2]) == ["", ""]
    assert result["error"][2].startswith("damaged")
    assert all("\n" not in error for error in result["error"])
    assert all(result["error"][2:])


def test_arrays_become_arrays_as_from_a_translator(generator: Generator, translate: Translate) -> None:
    same = np.stack([np.asarray(picture(40, 32, seed)) for seed in range(3)])
    expected = Translator(generator, CONFIG.generate).translate(same, size="native")
    assert (translate({"image": same})["translated"] == expected).all()
    mixed = objects(
        same[0], same[1].astype(np.float32), np.zeros((8, 8), np.uint8), "text", np.asarray(picture(24, 36))
    )
    result = translate({"image": mixed})
    assert (result["translated"][0] == expected[0]).all()
    assert [image.shape for image in result["translated"]] == [(32, 40, 3), *3 * [(0, 0, 3)], (36, 24, 3)]
    assert list(result["error"]) == [
        "",
        "must be uint8 [H, W, 3], got float32 [32, 40, 3]",
        "must be uint8 [H, W, 3], got uint8 [8, 8]",
        "is neither encoded bytes nor an array, but str",
        "",
    ]


def test_an_array_that_does_not_fit_into_memory_fails_alone(generator: Generator) -> None:
    tight = PipelineConfig(generate=GenerateConfig(backend="eager", device="cpu", memory_bytes=36_000_000))
    images = objects(*(np.asarray(picture(width, 16)) for width in (16, 4000, 16)))
    result = Translate(generator, size="native", config=tight)({"image": images})
    assert [bool(error) for error in result["error"]] == [False, True, False]


def test_columns_are_named_by_options(generator: Generator) -> None:
    translate = Translate(generator, column="bytes", output="winter", error="why", size="32", config=CONFIG)
    result = translate({"bytes": objects(photo(64, 48)), "label": np.array([7])})
    assert list(result) == ["bytes", "label", "winter", "why"]
    with pytest.raises(SetupError, match=r"^The columns 'a', 'b' and 'a' must have different names\.$"):
        Translate(generator, column="a", output="b", error="a")


def test_a_missing_column_is_one_sentence(translate: Translate) -> None:
    with pytest.raises(
        SetupError, match=r"^The dataset has no column 'image'; name the column with the images: 'bytes', 'path'\.$"
    ):
        translate({"bytes": objects(b""), "path": objects("a")})


def test_a_batch_without_rows_stays_one(translate: Translate) -> None:
    result = translate({"image": objects()})
    assert {name: len(column) for name, column in result.items()} == {"image": 0, "translated": 0, "error": 0}
    assert torch.get_num_threads() >= 1
