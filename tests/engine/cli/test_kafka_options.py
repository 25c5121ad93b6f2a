"""Settings file: it may hold every option; the command line and the environment take precedence."""

from __future__ import annotations

import json
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from engine.cli.kafka_options import kafka_options
from engine.cli.results import replay, results
from engine.cli.stream import stream
from engine.cli.submit import submit
from engine.errors import SetupError
from engine.stream.config import StreamConfig
from tests import ROOT

NEEDED = {"brokers": "b:1", "jobs": "j", "results": "r", "dead-letters": "d", "group": "g", "model": "m"}


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[StreamConfig]:
    """Replace the worker, and return a list that collects the configurations it would have had."""
    import engine.stream.worker as module

    made: list[StreamConfig] = []

    class Worker:
        def __init__(self, config: StreamConfig) -> None:
            made.append(config)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(module, "Worker", Worker)
    monkeypatch.setattr("engine.cli.stream.service_log", lambda _format: nullcontext())
    return made


def run(file: Path | None, *words: str, env: dict[str, str] | None = None, command: click.Command = stream) -> Result:
    return CliRunner().invoke(command, [*(("--config", str(file)) if file else ()), *words], env=env)


def written(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "worker.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    return path


def example(option: click.Option, folder: Path) -> Any:
    """Return a valid value of the option that is not its default."""
    kind = option.type
    if option.is_flag:
        return True
    if isinstance(kind, click.Choice):
        return next(choice for choice in kind.choices if choice != option.default)
    if isinstance(kind, click.FloatRange):
        return 0.75 if kind.max == 1 else 77.5
    if isinstance(kind, click.IntRange):
        return 77 if (kind.min or 0) <= 77 else (kind.min or 0) * 2
    if isinstance(kind, click.Path):
        (folder / "file").write_text("hidden")
        return str(folder / "file")
    special = {"size": "64x48", "memory": "3G", "canary": "my-model=5%"}
    word = special.get(str(option.name), f"my-{option.name}")
    return [word, f"{word}-2"] if option.multiple else word


def test_the_file_may_hold_every_option_of_a_worker(configs: list[StreamConfig], tmp_path: Path) -> None:
    options = {
        option.opts[0].removeprefix("--"): option
        for option in stream.params
        if isinstance(option, click.Option) and option.opts[0] != "--config"
    }
    settings = {key: example(option, tmp_path) for key, option in options.items()}
    done = run(written(tmp_path, settings))
    assert done.exit_code == 0, (done.output, done.exception)
    words = []
    for key, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{key}"] if one is True else [f"--{key}", str(one)]
    assert run(None, *words).exit_code == 0
    assert configs[0] == configs[1]
    assert configs[0].connection.sasl_password == "hidden"
    assert configs[0].max_in_flight == 77
    assert configs[0].models == ("my-models", "my-models-2")


def test_every_key_of_the_example_in_the_docs_is_an_option() -> None:
    text = (ROOT / "docs/streaming.md").read_text()
    example = tomllib.loads(text.split("```toml")[1].split("```")[0])
    assert len(example) > 10
    assert {f"--{key}" for key in example} <= {name for option in stream.params for name in option.opts}


def test_the_command_line_overrides_the_environment_which_overrides_the_file(
    configs: list[StreamConfig], tmp_path: Path
) -> None:
    file = written(tmp_path, NEEDED)
    environment = {"SOLSTICE_GROUP": "environment", "SOLSTICE_JOBS": "environment"}
    assert run(file, "--group", "line", env=environment).exit_code == 0
    (config,) = configs
    assert (config.group, config.jobs, config.results) == ("line", "environment", "r")


def test_the_environment_may_name_the_file_and_a_single_model_needs_no_list(
    configs: list[StreamConfig], tmp_path: Path
) -> None:
    done = run(None, env={"SOLSTICE_CONFIG": str(written(tmp_path, NEEDED))})
    assert done.exit_code == 0, done.output
    assert configs[0].models == ("m",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('colour = "red"\nspeed = "s3cret"', "queue knows: colour, speed"),
        ('sasl-password = "s3cret"', "queue knows: sasl-password"),
        ('[stream]\nsasl_password = "s3cret"', "queue knows: stream"),
        ('config = "s3cret"', "queue knows: config"),
        ('max_in_flight = "s3cret"', "queue knows: max_in_flight"),
        ('group = ["s3cret"]', "group in .* must be one value"),
        ('model = [["s3cret"]]', "model in .* must be a value or a list"),
        ("group = s3cret", "is not TOML"),
    ],
)
def test_an_invalid_key_is_named_without_its_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(text)
    done = run(file)
    assert isinstance(done.exception, SetupError)
    with pytest.raises(SetupError, match=said):
        raise done.exception
    assert "s3cret" not in str(done.exception) + done.output


@pytest.mark.parametrize(("data", "said"), [(b"\xff", "not UTF-8"), (None, "No such file")])
def test_an_unreadable_file_is_an_error(tmp_path: Path, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / "worker.toml").write_bytes(data)
    done = run(tmp_path / "worker.toml")
    assert isinstance(done.exception, SetupError)
    assert said in str(done.exception)


TYPED = [
    option
    for option in stream.params
    if isinstance(option, click.Option) and option.opts[0] != "--config" and option.type is not click.STRING
]


@pytest.mark.parametrize("option", TYPED, ids=lambda option: option.opts[0])
def test_a_value_of_the_wrong_type_is_an_error_that_names_only_the_option(option: click.Option, tmp_path: Path) -> None:
    key = option.opts[0].removeprefix("--")
    done = run(written(tmp_path, {**NEEDED, key: "s3cret"}))
    assert isinstance(done.exception, SetupError)
    assert str(done.exception).startswith(f"{key} in {tmp_path}/worker.toml has a value that it cannot have")
    assert "s3cret" not in str(done.exception) + done.output


def test_the_file_may_hold_a_password(configs: list[StreamConfig], tmp_path: Path) -> None:
    url = "https://user:s3cret@images.example/photos"
    assert run(written(tmp_path, {**NEEDED, "input-root": [url]})).exit_code == 0
    assert configs[0].input_roots == (url,)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(stream, []), (submit, ["photos"]), (results, []), (replay, [])],
    ids=lambda value: str(value),
)
def test_all_commands_of_the_queue_can_share_one_file(
    command: click.Command, arguments: list[str], tmp_path: Path
) -> None:
    """Each command uses its own settings and ignores those of the others."""
    file = written(tmp_path, {**NEEDED, "max-in-flight": 8})
    with command.make_context(command.name, ["--config", str(file), *arguments]) as ctx:
        assert ctx.params["brokers"] == NEEDED["brokers"]
        assert ("max_in_flight" in ctx.params) == (command is stream)


def test_a_command_without_a_file_uses_its_options() -> None:
    @click.command()
    @kafka_options
    def plain(brokers: str, **_: object) -> None:
        click.echo(brokers)

    assert run(None, "--brokers", "b:1", command=plain).output == "b:1\n"
