"""The `solstice` command: find a subcommand, run it, turn failures into one sentence and an exit code."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module

import click

from engine.cli.output import ImmediateExit
from engine.cli.start import prepare_process
from engine.errors import EngineError
from engine.system.terminal import visible


@dataclass(frozen=True)
class Subcommand:
    """Where a subcommand is, and its line in `solstice --help`, which must not import it."""

    home: str
    """`module:attribute`."""
    summary: str
    """First sentence of its help."""


OTHER_SYSTEMS = (
    "Solstice runs on Linux only; on Windows use WSL 2, on macOS a Linux container, such as that of deploy/Dockerfile."
)
"""Printed on other operating systems, whose locks, signals and memory figures are different."""

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing that can only be of standard output here: those of files are sentences already."""

COMMANDS = {
    "convert": Subcommand("engine.cli.convert:convert", "Translate the photos of SRC into the folder DST."),
    "models": Subcommand("engine.cli.models:models", "List the models that --model accepts by name."),
    "import": Subcommand("engine.cli.import_:import_model", "Convert a CycleGAN checkpoint to a model file."),
    "export": Subcommand("engine.cli.export:export_model", "Write a model for other programs."),
    "doctor": Subcommand(
        "engine.cli.doctor:doctor", "Show this machine's hardware and libraries, and what would make it faster."
    ),
    "compile": Subcommand(
        "engine.cli.compile:compile_model", "Compile a model for this machine, check it and time every backend."
    ),
    "bench": Subcommand("engine.cli.bench:bench", "Measure this machine: ceilings, each stage alone, and whole runs."),
    "plan": Subcommand("engine.cli.plan:plan_deployment", "Size a deployment for a queue, or a run over an archive."),
    "stream": Subcommand("engine.cli.stream:stream", "Translate the image jobs of a Kafka topic until stopped."),
    "submit": Subcommand("engine.cli.submit:submit", "Send a job for each image of SRC to a Kafka topic."),
    "results": Subcommand("engine.cli.results:results", "Follow the results of jobs: done, failed, rate, time left."),
    "replay": Subcommand("engine.cli.results:replay", "Send dead letters back to the topics they came from."),
}
"""All subcommands, in the order of the help."""


class Subcommands(click.Group):
    """Import a subcommand only when it is called, so that the help is quick and Ctrl-C during the import is handled."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return all names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a subcommand; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].home.split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest similar names for one that does not exist."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.summary) for name, subcommand in COMMANDS.items()])


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="solstice-engine", prog_name="solstice")
def solstice() -> None:
    """Translate photo archives and image streams with CycleGAN generators."""


def main() -> None:
    """Run the command line; exit code 2 with one sentence for failures that the user can fix, 130 when interrupted."""
    run(solstice)


def run(command: click.Command, continue_with: str = "run the same command again") -> None:
    """Run a command, turn its failures into one sentence and an exit code, and exit; never returns.

    `continue_with` tells what to do after an interruption.
    """
    if not sys.platform.startswith("linux"):
        click.echo(f"solstice: {OTHER_SYSTEMS}", err=True)
        sys.exit(2)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_EchoHandler()])
    warnings.filterwarnings("ignore", module="PIL")  # about odd tags in files, which no user can act on
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        prepare_process()
        command.main(standalone_mode=False)
        sys.stdout.flush()
    except ImmediateExit as exit:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit.code if isinstance(exit.code, int) else 1)
    except click.exceptions.Exit as exit:
        sys.exit(exit.exit_code)
    except click.ClickException as error:
        _show(error)
        sys.exit(2)
    except EngineError as error:
        click.echo(f"solstice: {visible(str(error))}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"Interrupted; {continue_with} to continue.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output has exited, as with `| head`
        _close_standard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        click.echo(f"solstice: Standard output cannot be written: {error.strerror}.", err=True)
        _close_standard_output()
        sys.exit(2)
    sys.exit(0)


def _close_standard_output() -> None:
    """Send what is left in the buffer to nowhere, where the interpreter would fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _show(error: click.ClickException) -> None:
    """Print a usage error as click does, with control characters in its values escaped."""
    stream = io.StringIO()
    error.show(stream)
    click.echo(visible(stream.getvalue().rstrip("\n"), lines=True), err=True)


class _EchoHandler(logging.Handler):
    """Write log messages to the current standard error, so that they do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(visible(self.format(record), lines=bool(record.exc_info)), err=True)


def _interrupt(_signum: int, _frame: object) -> None:
    """Make SIGTERM end a run like Ctrl-C: drop what is in flight, commit the manifest."""
    raise KeyboardInterrupt
