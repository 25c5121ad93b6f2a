"""`solstice doctor`: what this machine has, which backend it would use, and what would make it faster."""

from __future__ import annotations

import dataclasses
import json

import click

from engine.machine import Machine, examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, which backend `auto` takes, and what to install for a faster one."""
    machine = examine()
    click.echo(json.dumps(dataclasses.asdict(machine)) if as_json else in_words(machine))


def in_words(machine: Machine) -> str:
    """Lay out what was found for reading."""
    width = max(map(len, machine.facts))
    lines = [f"{name:{width}}  {value}" for name, value in machine.facts.items()]
    lines += ["", f"A large run with --backend auto uses {machine.backend}."]
    lines += machine.advice or ["Nothing is missing for the fastest backend of this machine."]
    return "\n".join(lines)
