"""Print lines whose names and messages come from strangers, and end the process."""

from __future__ import annotations

from collections.abc import Sequence

import click

from engine.system.terminal import visible


def say(line: str, *, err: bool = False) -> None:
    """Print one line with its control characters escaped."""
    click.echo(visible(line), err=err)


SHOWN_ITEMS = 20
"""Lines of a list that are printed."""


def say_some(lines: Sequence[str], where_all: str = "") -> None:
    """Print the first `SHOWN_ITEMS` lines, indented, and the number of the others; `where_all` tells what lists all."""
    for line in lines[:SHOWN_ITEMS]:
        say(f"  {line}")
    if len(lines) > SHOWN_ITEMS:
        say(f"  … and {len(lines) - SHOWN_ITEMS:,} more{f' ({where_all})' if where_all else ''}")


class ImmediateExit(SystemExit):
    """Exit of a command whose process must end without the interpreter's shutdown; `engine.cli.main` carries it out.

    The shutdown stops the daemon threads of libraries in the middle of native code, which can abort the process. Raise
    it only when everything is stored. Code that runs a command inside its own process sees an ordinary `SystemExit`.
    """
