"""The JSON document of one run: writing it whole, reading it back, and its schema.

The schema's version is part of the document. A change that renames or removes a field, or changes its meaning, gets a
new version and a new file in `schemas/`; an added optional field does not.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import fastjsonschema

from engine.errors import SetupError
from engine.system.files import write_atomically

SCHEMA = "solstice-bench/1"

Document = dict[str, Any]


def validate(document: object) -> None:
    """Raise `ValueError` when `document` is not one of this version."""
    try:
        _validator()(document)
    except fastjsonschema.JsonSchemaException as error:
        raise ValueError(str(error)) from None


def save(document: Document, path: Path) -> None:
    """Write a document that is valid; the file appears under its name only when whole.

    Raises `SetupError` when the file cannot be written.
    """
    validate(document)
    try:
        write_atomically(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise SetupError(f"Cannot write {path}: {error.strerror}; name another file with --json.") from error


def load(path: Path) -> Document:
    """Read a document; raises `SetupError` when it cannot be read or is none of this version."""
    try:
        document = json.loads(path.read_bytes())
        validate(document)
    except OSError as error:
        raise SetupError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise SetupError(
            f"{path} is not a document of `solstice bench` in version {SCHEMA} ({error}); measure again with --json."
        ) from error
    read: Document = document
    return read


def schema() -> dict[str, Any]:
    """Return the JSON schema."""
    text = (resources.files("engine.bench") / "schemas/bench-1.json").read_text()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@cache
def _validator() -> Any:
    return fastjsonschema.compile(schema())
