"""Where native libraries write: descriptor 2 of the process, into a file while photos are converted."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

FILE_NAME = "native.log"


class NativeLog:
    """Sends file descriptor 2 to a file from `open` to the end of a `with` block; `sys.stderr` stays as it is.

    Decoders print a line there for each damaged image, which would break the progress line and repeat the summary. A
    crash in native code leaves the tracebacks of all Python threads in the file. With SOLSTICE_DECODER_LOG=1 nothing is
    redirected.
    """

    def __init__(self) -> None:
        self._terminal: int | None = None
        self._temporary: Path | None = None
        self._stderr = sys.stderr
        self._faulthandler_was_on = False

    def __enter__(self) -> Self:
        return self

    def open(self, path: Path | None) -> None:
        """Redirect to `path`, whose earlier content is replaced; None is a temporary file, which a crash leaves."""
        if self._terminal is not None or os.environ.get("SOLSTICE_DECODER_LOG") == "1":
            return
        sys.stderr.flush()
        log = self._create(path)
        self._terminal = os.dup(2)
        self._stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(self._terminal), "w", buffering=1)
        os.dup2(log, 2)
        os.close(log)
        self._faulthandler_was_on = faulthandler.is_enabled()
        faulthandler.enable(file=2)

    def _create(self, path: Path | None) -> int:
        if path is not None:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        log, name = tempfile.mkstemp(prefix="solstice-", suffix=".log")
        self._temporary = Path(name)
        return log

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal is None:
            return
        faulthandler.disable()
        with suppress(BrokenPipeError):
            sys.stderr.close()
        sys.stderr = self._stderr
        os.dup2(self._terminal, 2)
        os.close(self._terminal)
        self._terminal = None
        if self._faulthandler_was_on:
            faulthandler.enable(file=2)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
