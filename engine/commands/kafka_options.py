"""Options that say how to reach Kafka, the same for every command that does; each may come from the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.commands.config_file import config_option
from engine.commands.options import F, together
from engine.errors import SetupError
from engine.stream.connection import Connection

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

kafka_options: Callable[[F], F] = together(
    config_option,
    click.option(
        "--brokers", required=True, envvar="SOLSTICE_KAFKA_BROKERS", metavar="H:P[,H:P…]", help="Where Kafka listens."
    ),
    click.option("--tls", is_flag=True, envvar="SOLSTICE_KAFKA_TLS", help="Encrypt the connection."),
    click.option("--tls-ca", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_CA", help="PEM file of the brokers' authority."),
    click.option("--tls-cert", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_CERT", help="PEM file of this client."),
    click.option("--tls-key", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_KEY", help="PEM file of its key."),
    click.option(
        "--sasl-mechanism", type=click.Choice(_MECHANISMS), envvar="SOLSTICE_KAFKA_SASL_MECHANISM", help="Log in so."
    ),
    click.option("--sasl-user", envvar="SOLSTICE_KAFKA_USER", help="The password comes from SOLSTICE_KAFKA_PASSWORD."),
    click.option("--sasl-password-file", type=_FILE, envvar="SOLSTICE_KAFKA_PASSWORD_FILE", help="Or from this file."),
)
"""Adds the options to a command, which takes them all as keyword arguments."""


def connection_from(options: dict[str, Any]) -> Connection:
    """Take the options out of `options` and make a connection of them; raises `SetupError`."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it reports every passing trouble; we say what matters
    password_file: Path | None = options.pop("sasl_password_file")
    return Connection(sasl_password=_password(password_file), **{name: options.pop(name) for name in _NAMES})


_NAMES = ("brokers", "tls", "tls_ca", "tls_cert", "tls_key", "sasl_mechanism", "sasl_user")


def _password(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("SOLSTICE_KAFKA_PASSWORD")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The password file {file} cannot be read.") from error
