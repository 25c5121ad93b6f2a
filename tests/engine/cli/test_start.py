"""Commands work with closed standard streams and in any locale; a lost folder or output is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import ROOT

OTHER_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOTHING: Mapping[str, str] = {}
SOLSTICE = [sys.executable, "-m", "engine"]


def python(
    code: str, *arguments: str, before: Callable[[], None] | None = None, environment: Mapping[str, str] = NOTHING
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from engine.cli.start import prepare_process\n{code}", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), **environment},
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_stream_is_opened_before_a_file_takes_its_number(closed: int) -> None:
    code = (
        "import os, sys\n"
        "prepare_process()\n"
        "for stream in (sys.stdout, sys.stderr):\n"
        "    print('heard', file=stream, flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(os.open('/dev/null', os.O_RDONLY) <= 2)"
    )
    done = python(code, before=lambda: os.close(closed))
    assert done.returncode == 0, done.stderr
    assert (done.stdout == "heard\n", done.stderr == "heard\n") == (closed != 1, closed != 2)


def test_names_are_utf_8_in_any_locale() -> None:
    code = "import sys\nprepare_process()\nprint(sys.getfilesystemencoding(), sys.argv[1])"
    done = python(code, "naïve 日本", environment=OTHER_LOCALE)
    assert done.stdout == "utf-8 naïve 日本\n", done.stderr


def test_a_deleted_current_folder_is_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *SOLSTICE, "models"],
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "solstice: The current folder does not exist any more; change to another one.\n"


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*SOLSTICE, "models"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr == "solstice: Standard output cannot be written: No space left on device.\n"
