"""`solstice doctor`: show this machine's hardware and libraries, and what would make it faster."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from engine.cli.options import MONITORING, command

if TYPE_CHECKING:
    from engine.cli.machine import MachineReport


@command("doctor")
@MONITORING.option("--json", "as_json", is_flag=True, help="Print it as one JSON object on standard output.")
def doctor(as_json: bool) -> None:
    """Show this machine's hardware and libraries, and what would make it faster."""
    from engine.cli.machine import examine

    machine = examine()
    click.echo(json.dumps(dataclasses.asdict(machine)) if as_json else describe(machine))


def describe(machine: MachineReport) -> str:
    """Return the facts and the advice as text."""
    width = max(map(len, machine.facts))
    lines = [f"{name:{width}}  {value}" for name, value in machine.facts.items()]
    lines += ["", f"A large run with --backend auto uses {machine.backend}."]
    lines += machine.advice or ["Nothing is missing for the fastest backend of this machine."]
    return "\n".join(lines)
