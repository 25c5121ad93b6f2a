"""The `solstice` command: arguments in, exit code out; every failure a user can cause is one sentence."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from importlib import import_module

import click

from engine.errors import EngineError

COMMANDS = {
    "convert": "engine.cli.convert:convert",
    "compile": "engine.cli.compile:compile_model",
    "doctor": "engine.cli.doctor:doctor",
    "models": "engine.cli.models:models",
    "import": "engine.cli.models:import_model",
    "stream": "engine.cli.stream:stream",
    "submit": "engine.cli.submit:submit",
    "results": "engine.cli.results:results",
    "replay": "engine.cli.results:replay",
}
"""Where each subcommand is."""


class Subcommands(click.Group):
    """Imports a subcommand when it is called: the seconds that takes are under `run`'s rules, Ctrl-C included."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click calls it so)
        """Name all, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="solstice-engine", prog_name="solstice")
def solstice() -> None:
    """Translate photo archives and image streams with CycleGAN generators."""


def main() -> None:
    """Run the command line; exit code 2 with one sentence for what the user can mend, 130 when interrupted."""
    run(solstice)


def run(command: click.Command) -> None:
    """Run any of the project's commands under its rules for failures; never returns."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Echo()])
    warnings.filterwarnings("ignore", module="PIL")  # odd tags in odd files: nothing a user can act on
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except EngineError as error:
        click.echo(f"solstice: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; the same command goes on from here.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    sys.exit(0)


class _Echo(logging.Handler):
    """Writes to whatever standard error is at the moment, so that messages do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def _terminate(_signum: int, _frame: object) -> None:
    """Let SIGTERM end a run as Ctrl-C does: in flight dropped, manifest committed."""
    raise KeyboardInterrupt
