"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import inspect
import re

from engine import errors
from engine.errors import EngineError


def test_every_error_is_an_engine_error_and_is_drawn_in_the_docstring() -> None:
    found = {name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, EngineError)}
    assert errors.__doc__ is not None
    drawn = re.findall(r"^    (?:[│ ]*[├└]── )?(\w+)", errors.__doc__, flags=re.MULTILINE)
    assert sorted(drawn) == sorted(found)


def test_stopping_a_run_and_skipping_an_image_are_told_apart() -> None:
    assert not issubclass(errors.StopRun, errors.SkipImage)
    assert not issubclass(errors.SetupError, errors.StopRun)
