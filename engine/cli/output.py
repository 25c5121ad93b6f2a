"""Print lines whose names and messages come from strangers, and end the process."""

from __future__ import annotations

import click

from engine.system.terminal import visible


def say(line: str, *, err: bool = False) -> None:
    """Print one line with its control characters escaped."""
    click.echo(visible(line), err=err)


class ImmediateExit(SystemExit):
    """Exit of a command whose process must end without the interpreter's shutdown; `engine.cli.main` carries it out.

    The shutdown stops the daemon threads of libraries in the middle of native code, which can abort the process. Raise
    it only when everything is stored. Code that runs a command inside its own process sees an ordinary `SystemExit`.
    """
