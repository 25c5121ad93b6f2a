"""Control characters in untrusted text are escaped before a terminal or log shows it."""

from __future__ import annotations

import json
import logging
import re

import pytest

from engine.observe.logs import JsonFormatter, TextFormatter
from engine.system.terminal import visible, visible_json

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e4\u4e2d.jpg", "plain \u00e4\u4e2d.jpg"),
        ("\x1b[2J\x1b]0;title\x07.jpg", r"\x1b[2J\x1b]0;title\x07.jpg"),
        ("\x9b31mred", r"\x9b31mred"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\x7f\x00", r"\x7f\x00"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_line_breaks_can_be_kept() -> None:
    assert visible("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


def test_escaped_json_has_the_same_values() -> None:
    fields = {"name": "\x9b31m\u202e\x7f\u2028\u00e4"}
    text = visible_json(json.dumps(fields, ensure_ascii=False, indent=1))
    assert json.loads(text) == fields
    assert not UNSAFE.search(text)


@pytest.mark.parametrize("formatter", [TextFormatter("%(message)s"), JsonFormatter()])
def test_a_log_line_is_one_line_without_control_characters(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("n", logging.INFO, "", 0, "%s", ("\x1b[31m\x9b\u202e\n",), None)
    assert not UNSAFE.search(formatter.format(record))
    assert "\n" not in formatter.format(record)
