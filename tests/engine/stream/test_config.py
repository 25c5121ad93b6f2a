"""Defaults are defined once: a worker uses those of its parts, and the command line those of the worker."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
import pytest

from engine.cli.stream import stream
from engine.config import BatchConfig
from engine.stream.config import DeadLetterLimit, KafkaSinkConfig, KafkaSourceConfig, StreamConfig


def defaults(config: type[Any]) -> dict[str, object]:
    return {
        field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING
    }


@pytest.mark.parametrize("part", [KafkaSourceConfig, KafkaSinkConfig])
def test_a_worker_has_the_defaults_of_its_parts(part: type[Any]) -> None:
    worker, theirs = defaults(StreamConfig), defaults(part)
    shared = set(worker) & set(theirs)
    assert len(shared) >= 2
    assert {name: worker[name] for name in shared} == {name: theirs[name] for name in shared}
    limit = DeadLetterLimit()
    assert (worker["max_dead_letters"], worker["max_dead_letter_ratio"]) == (limit.consecutive, limit.ratio)


def test_the_command_line_has_the_defaults_of_the_worker() -> None:
    worker = defaults(StreamConfig)
    options = {
        option.name: option.default
        for option in stream.params
        if isinstance(option, click.Option) and option.name in worker and not option.required
    }
    given = {name: default for name, default in options.items() if isinstance(default, int | float | str)}
    assert len(given) >= 8
    assert given == {name: worker[name] for name in given}


def test_the_maximum_wait_for_a_batch_to_fill_is_50_ms() -> None:
    pipeline = dataclasses.fields(StreamConfig)[
        [field.name for field in dataclasses.fields(StreamConfig)].index("pipeline")
    ]
    assert callable(pipeline.default_factory)
    assert pipeline.default_factory().batch == BatchConfig(max_wait_s=0.05)
    (option,) = [option for option in stream.params if option.name == "max_wait"]
    assert option.default == 0.05


def test_metrics_are_off_by_default_and_served_on_the_loopback_address() -> None:
    worker = defaults(StreamConfig)
    assert (worker["metrics_host"], worker["metrics_port"]) == ("127.0.0.1", None)
