from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from engine.bench.document import SCHEMA, Document, load, save, schema, validate
from engine.errors import SetupError


def test_a_measured_document_is_valid(measured: Document) -> None:
    validate(measured)
    jsonschema.Draft7Validator(schema()).validate(measured)


def test_the_schema_itself_is_valid_and_has_the_version_of_the_documents() -> None:
    jsonschema.Draft7Validator.check_schema(schema())

    assert schema()["properties"]["schema"] == {"const": SCHEMA}


def test_a_document_comes_back_as_it_was_saved(measured: Document, tmp_path: Path) -> None:
    save(measured, tmp_path / "run.json")

    assert load(tmp_path / "run.json") == measured
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "must be object"),
        ('{"schema": "solstice-bench/0"}', "must contain"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)

    with pytest.raises(SetupError, match=f"other.json is not a document .*{reason}.*measure again"):
        load(tmp_path / "other.json")


def test_another_version_is_refused(document: Document, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(json.dumps({**document, "schema": "solstice-bench/2"}))

    with pytest.raises(SetupError, match="must be same as const definition: solstice-bench/1"):
        load(tmp_path / "new.json")


def test_a_measurement_without_values_is_refused(document: Document) -> None:
    document["generator"]["best_images_per_s"]["values"] = []

    with pytest.raises(ValueError, match="best_images_per_s"):
        validate(document)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"Cannot read .*: No such file"):
        load(tmp_path / "none.json")


def test_a_file_that_cannot_be_written_is_refused(measured: Document, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SetupError, match=r"Cannot write .*--json"):
        save(measured, tmp_path / "file" / "run.json")
