"""A password in a URL is refused on the command line, where other users could see it."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from engine.cli.convert import convert
from engine.cli.stream import stream
from engine.cli.submit import submit
from engine.errors import SetupError

URL = "https://user:s3cret@images.example/photos"
KAFKA = ["--brokers", "127.0.0.1:1", "--jobs", "j"]
STREAM = [*KAFKA, "--results", "r", "--dead-letters", "d", "--group", "g", "--model", "m"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (convert, [URL, "out", "--model", "m"]),
        (convert, ["photos", URL, "--model", "m"]),
        (submit, [URL, *KAFKA]),
        (stream, [*STREAM, "--input-root", "photos", "--input-root", URL]),
        (stream, [*STREAM, "--output-root", URL]),
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_shown(command: click.Command, words: list[str]) -> None:
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, SetupError)
    assert "The list of processes would show the password" in str(done.exception)
    assert "s3cret" not in str(done.exception) + done.output


def test_an_address_without_a_password_is_accepted() -> None:
    done = CliRunner().invoke(submit, ["abfs://photos@account/in", "--brokers", "127.0.0.1:1"])
    assert "Missing option '--jobs'" in done.output
