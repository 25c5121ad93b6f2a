"""Options of the connection to Kafka, shared by all commands that use it; each may be set in the environment."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from engine.cli.options import KAFKA, OTHER, F, together
from engine.errors import SetupError
from engine.stream.connection import Connection

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def connection_from(options: dict[str, Any]) -> Connection:
    """Remove the options of the connection from `options` and return a `Connection`; raises `SetupError`."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs transient failures as errors
    password_file: Path | None = options.pop("sasl_password_file")
    return Connection(sasl_password=_password(password_file), **{name: options.pop(name) for name in _NAMES})


_QUEUE_COMMANDS = (("stream", "stream"), ("submit", "submit"), ("results", "results"), ("results", "replay"))
"""Module and name of each command that may read the same settings file."""

_NAMES = ("brokers", "tls", "tls_ca", "tls_cert", "tls_key", "sasl_mechanism", "sasl_user")


def _password(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("SOLSTICE_KAFKA_PASSWORD")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"The password file {file} cannot be read.") from error


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let the file's settings stand where neither the command line nor the environment says otherwise.

    Settings of the other commands of the queue are passed over. Raises `SetupError` for a file that cannot be read, and
    for keys that no command of the queue has. No message shows a value: somebody may have written a password there.
    """
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise SetupError(f"The settings file {path} is not UTF-8.") from None
    except OSError as error:
        raise SetupError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"The settings file {path} is not TOML: {error}.") from error
    options = _options(ctx.command)
    unknown = settings.keys() - options.keys()
    if unknown:  # of this command: the commands of a queue share one file
        unknown -= _options_of_the_queue()
    if unknown:
        raise SetupError(
            f"{path} has settings that neither solstice {ctx.info_name} nor another command of the queue knows: "
            f"{', '.join(key for key in settings if key in unknown)}; keys are the options' long names, such as "
            "brokers or tls-ca."
        )
    own = [key for key in settings if key in options]
    ctx.default_map = {options[key].name: _value(ctx, options[key], key, settings[key], path) for key in own}


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.callback is not read_config
        for name in option.opts
        if name.startswith("--")
    }


def _options_of_the_queue() -> set[str]:
    """Return the long names of all options of the commands that share a file."""
    commands = (getattr(import_module(f"engine.cli.{module}"), name) for module, name in _QUEUE_COMMANDS)
    return {name for command in commands for name in _options(command)}


def _value(ctx: click.Context, option: click.Option, key: str, value: Any, path: Path) -> Any:
    """Return a TOML value as click takes it; raises `SetupError`, without the value, for one that it does not take."""
    values = value if isinstance(value, list) and option.multiple else [value]
    if any(isinstance(part, dict | list) for part in values):
        raise SetupError(f"{key} in {path} must be {'a value or a list of them' if option.multiple else 'one value'}.")
    taken = values if option.multiple else value
    try:
        option.type_cast_value(ctx, taken)
    except click.BadParameter:
        raise SetupError(
            f"{key} in {path} has a value that it cannot have; solstice {ctx.info_name} --help describes --{key}."
        ) from None
    return taken


config_option: Callable[[F], F] = OTHER.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=read_config,
    is_eager=True,
    expose_value=False,
    envvar="SOLSTICE_CONFIG",
    help="TOML file with any of these options; the command line and the environment take precedence.",
)

kafka_options: Callable[[F], F] = together(
    config_option,
    KAFKA.option(
        "--brokers",
        required=True,
        envvar="SOLSTICE_KAFKA_BROKERS",
        metavar="H:P[,H:P…]",
        help="Addresses of Kafka brokers.",
    ),
    KAFKA.option("--tls", is_flag=True, envvar="SOLSTICE_KAFKA_TLS", help="Encrypt the connection."),
    KAFKA.option(
        "--tls-ca", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_CA", help="PEM file of the brokers' certificate authority."
    ),
    KAFKA.option(
        "--tls-cert", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_CERT", help="PEM file of the client certificate."
    ),
    KAFKA.option("--tls-key", type=_FILE, envvar="SOLSTICE_KAFKA_TLS_KEY", help="PEM file of the client's key."),
    KAFKA.option(
        "--sasl-mechanism",
        type=click.Choice(_MECHANISMS),
        envvar="SOLSTICE_KAFKA_SASL_MECHANISM",
        help="SASL mechanism.",
    ),
    KAFKA.option(
        "--sasl-user", envvar="SOLSTICE_KAFKA_USER", help="SASL user; set the password in SOLSTICE_KAFKA_PASSWORD."
    ),
    KAFKA.option(
        "--sasl-password-file",
        type=_FILE,
        envvar="SOLSTICE_KAFKA_PASSWORD_FILE",
        help="Read the password from this file instead.",
    ),
)
"""How to reach Kafka; the command takes all options as keyword arguments."""
