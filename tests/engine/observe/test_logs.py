"""Log of a service: readable text or one JSON object per line, including output of libraries and crashes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from engine.observe.logs import JsonFormatter

SERVICE = """
import logging, os, sys, threading, warnings
from engine.errors import SetupError
from engine.observe.logs import service_log
log = logging.getLogger("engine.somewhere")

def fail():
    raise ZeroDivisionError("in a thread")

with service_log(sys.argv[1]):
    log.info("starts with %s", "a café\\nand a second line")
    log.debug("not wanted")
    logging.getLogger("kafka").error("passing trouble")
    logging.getLogger("somebody").warning("else's")
    EXTRA
"""


def run(format: str, extra: str = "pass") -> tuple[int, str]:
    """Run a service in a process of its own; return its exit code and its standard error."""
    code = SERVICE.replace("EXTRA", extra)
    done = subprocess.run([sys.executable, "-c", code, format], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    return done.returncode, done.stderr


def lines(extra: str = "pass") -> tuple[int, list[dict[str, Any]]]:
    """Run a service that logs in JSON; return its exit code and its lines, each of which must be an object."""
    code, text = run("json", extra)
    return code, [json.loads(line) for line in text.splitlines()]


def test_a_json_line_has_time_level_logger_and_message() -> None:
    record = logging.LogRecord("engine.x", logging.WARNING, "x.py", 1, "lost %d", (3,), None)
    record.created, record.msecs = 1_800_000_000.25, 250.0
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "WARNING",
        "logger": "engine.x",
        "message": "lost 3",
    }


def test_own_messages_and_warnings_of_libraries_are_logged_and_temporary_broker_errors_are_not() -> None:
    code, found = lines()
    assert code == 0
    assert [(line["logger"], line["level"]) for line in found] == [
        ("engine.somewhere", "INFO"),
        ("somebody", "WARNING"),
    ]
    assert found[0]["message"] == "starts with a café\nand a second line"


def test_text_format_has_level_and_message() -> None:
    code, text = run("text")
    assert code == 0
    assert "INFO starts with a café" in text
    assert "not wanted" not in text
    assert "passing trouble" not in text


@pytest.mark.parametrize(
    ("ending", "code", "message"),
    [
        ("raise SetupError('There is no broker.')", 2, "There is no broker."),
        ("raise KeyboardInterrupt", 130, "Interrupted"),
        ("1 / 0", 1, "division by zero"),
        ("sys.exit(7)", 7, "else's"),
    ],
)
def test_the_error_that_ends_a_service_is_logged_as_one_line(ending: str, code: int, message: str) -> None:
    ended, found = lines(ending)
    assert (ended, found[-1]["message"]) == (code, message)
    assert ("traceback" in found[-1]) == (code == 1)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("os.write(2, b'libjpeg: a half-read \\xff photo\\n')", "libjpeg: a half-read \ufffd photo"),
        ("print('a print', file=sys.stderr)", "a print"),
        ("warnings.warn('soon gone')", "soon gone"),
        ("t = threading.Thread(target=fail); t.start(); t.join()", "ZeroDivisionError: in a thread"),
    ],
)
def test_output_of_libraries_and_threads_is_logged_line_by_line(extra: str, said: str) -> None:
    code, found = lines(extra)
    assert code == 0
    assert said in "\n".join(line["message"] for line in found)


def test_in_text_format_the_error_that_ends_a_service_is_raised() -> None:
    code, text = run("text", "raise SetupError('There is no broker.')")
    assert code == 1
    assert "There is no broker." in text.splitlines()[-1]
