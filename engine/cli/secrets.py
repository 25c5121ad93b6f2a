"""Keep passwords off the command line, where every user of the machine can read them."""

from __future__ import annotations

from typing import TypeVar

import click
from click.core import ParameterSource

from engine.errors import SetupError
from engine.system.storage import split_login

T = TypeVar("T", str, "str | None", "tuple[str, ...]")


def refuse_password(ctx: click.Context, param: click.Parameter, value: T) -> T:
    """Return `value`, one URL or several; raises `SetupError` for a password in one that stands on the command line."""
    assert param.name is not None
    if ctx.get_parameter_source(param.name) is not ParameterSource.COMMANDLINE:
        return value
    urls = (value,) if isinstance(value, str) else value or ()
    if any(split_login(url)[1] is not None for url in urls):
        raise SetupError(
            f"The list of processes would show the password in {param.human_readable_name}; write it into a netrc file "
            "that the environment variable NETRC names, or for `stream` into the settings file (--config)."
        )
    return value
