"""Log lines of services: for people, or one JSON object each."""

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

LogFormat = Literal["text", "json"]

log = logging.getLogger(__name__)


@contextmanager
def service_log(format: LogFormat) -> Iterator[None]:
    """Send log lines to standard error during a `with` block; in JSON they are all that the process writes there.

    So what ends the block is logged, too, and ends the process with its exit code: 2 for an `EngineError`, 130 for
    Ctrl-C, 1 for what nobody expected. Lines of native libraries and of other threads' tracebacks become log lines.
    """
    if format == "text":
        log_to_stderr(format)
        yield
        return
    with _stray_lines() as stderr:
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
    """Send this project's messages from INFO up to standard error, or to `stream`, and others' warnings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("engine").setLevel(logging.INFO)
    # kafka-python reports every passing trouble as an error; the source and the sink say what matters.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


_TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line without its end."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


@contextmanager
def _stray_lines() -> Iterator[TextIO]:
    """Log what is written to standard error past the logs, and give the real standard error for these."""
    sys.stderr.flush()
    ours = os.dup(2)
    lines, end = os.pipe()
    os.dup2(end, 2)
    os.close(end)
    reader = threading.Thread(target=_log_lines, args=(lines,), name="stray lines", daemon=True)
    reader.start()
    try:
        # Not closed: a thread may have something to say at any time. Text that is no Unicode must not end it.
        yield os.fdopen(os.dup(ours), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    finally:
        sys.stderr.flush()
        os.dup2(ours, 2)
        os.close(ours)
        reader.join(1.0)  # no longer: a child process may hold the pipe open


def _log_lines(descriptor: int) -> None:
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                logging.getLogger("stderr").warning("%s", line.rstrip())
