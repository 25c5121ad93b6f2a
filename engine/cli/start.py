"""Make the process that a command starts in fit for it: standard streams, encoding of names, current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.errors import SetupError

_UTF8_MODE = "PYTHONUTF8"


def prepare_process() -> None:
    """Open closed standard streams, start again in UTF-8 mode where the locale is another one, check the folder.

    Raises:
        SetupError: The current folder has been deleted.
    """
    _open_standard_streams()
    _use_utf8()
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SetupError("The current folder does not exist any more; change to another one.") from None


def _open_standard_streams() -> None:
    """Point closed standard streams at nothing: the next file would get their number, and what is printed with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _use_utf8() -> None:
    """Run the same command in Python's UTF-8 mode where names of files would be decoded by another encoding.

    Names are bytes to Linux and nearly always UTF-8. In a locale such as ISO-8859-1 they would be other names here.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(_UTF8_MODE) == "1":
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = os.environ | {_UTF8_MODE: "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)
