"""Logging of services as text or as one JSON object per line."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from engine.errors import EngineError
from engine.system.terminal import visible, visible_json

LogFormat = Literal["text", "json"]

log = logging.getLogger(__name__)


@contextmanager
def service_log(format: LogFormat) -> Iterator[None]:
    """Log to standard error during a `with` block.

    With `json`, every line on standard error is a JSON object: output of native libraries and tracebacks of other
    threads become log records. An exception that leaves the block is logged and ends the process with exit code 2
    for an `EngineError`, 130 for Ctrl-C and 1 for anything else.
    """
    if format == "text":
        log_to_stderr(format)
        yield
        return
    with _capture_stderr() as stderr:
        log_to_stderr(format, stderr)
        logging.captureWarnings(True)
        try:
            yield
        except EngineError as error:
            log.critical("%s", error)
            sys.exit(2)
        except KeyboardInterrupt:
            log.critical("Interrupted")
            sys.exit(130)
        except Exception as error:
            log.critical("%s", error, exc_info=True)
            sys.exit(1)


def log_to_stderr(format: LogFormat, stream: TextIO | None = None) -> None:
    """Log this project from INFO and other libraries from WARNING to standard error, or to `stream`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("engine").setLevel(logging.INFO)
    # kafka-python logs transient failures as errors; the source and the sink log those that matter.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


_TEXT = "%(asctime)s %(levelname)s %(message)s"


class TextFormatter(logging.Formatter):
    """Format a record as one line, with the traceback below if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name of logging)
        """Return the line; control characters in the message are escaped."""
        record.message = visible(record.message)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object: time (UTC), level, logger, message, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a newline."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return visible_json(json.dumps(fields, ensure_ascii=False))


@contextmanager
def _capture_stderr() -> Iterator[TextIO]:
    """Turn everything written to file descriptor 2 into log records; yield a stream to the original descriptor."""
    sys.stderr.flush()
    ours = os.dup(2)
    lines, end = os.pipe()
    os.dup2(end, 2)
    os.close(end)
    reader = threading.Thread(target=_log_each_line, args=(lines,), name="stderr capture", daemon=True)
    reader.start()
    try:
        # Not closed, because other threads may still log. Surrogates must not raise.
        yield os.fdopen(os.dup(ours), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    finally:
        sys.stderr.flush()
        os.dup2(ours, 2)
        os.close(ours)
        reader.join(1.0)  # with a limit, because a child process may hold the pipe open


def _log_each_line(descriptor: int) -> None:
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                logging.getLogger("stderr").warning("%s", line.rstrip())
