"""`--config FILE`: a command's settings from a TOML file, whose keys are the options' long names."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.commands.options import F
from engine.errors import SetupError


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let the file's settings stand where neither the command line nor the environment says otherwise.

    Raises `SetupError` for a file that cannot be read and for keys that the command does not have. No message shows
    a value: somebody may have written a password there.
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
    unknown = [key for key in settings if key not in options]
    if unknown:
        raise SetupError(
            f"{path} has settings that solstice {ctx.info_name} does not know: {', '.join(unknown)}; "
            "keys are the options' long names, such as brokers or tls-ca."
        )
    ctx.default_map = {options[key].name: _value(options[key], key, value, path) for key, value in settings.items()}


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.callback is not read_config
        for name in option.opts
        if name.startswith("--")
    }


def _value(option: click.Option, key: str, value: Any, path: Path) -> Any:
    """Give what click takes from TOML's types; raises `SetupError` for a table, or a list where there can be one."""
    values = value if isinstance(value, list) and option.multiple else [value]
    if any(isinstance(part, dict | list) for part in values):
        raise SetupError(f"{key} in {path} must be {'a value or a list of them' if option.multiple else 'one value'}.")
    return values if option.multiple else value


config_option: Callable[[F], F] = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=read_config,
    is_eager=True,
    expose_value=False,
    envvar="SOLSTICE_CONFIG",
    help="TOML file with any of these options; the command line and the environment come first.",
)
