"""Print lines for people; names and messages in them come from strangers."""

from __future__ import annotations

import click

from engine.system.terminal import visible


def say(line: str, *, err: bool = False) -> None:
    """Print one line with its control characters escaped."""
    click.echo(visible(line), err=err)
