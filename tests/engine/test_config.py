"""Configuration is frozen, checks itself, and explains every field."""

from __future__ import annotations

import ast
import dataclasses
import inspect

import pytest

from engine import config
from engine.config import GPU_BATCH, BatchConfig, EncodeConfig, GenerateConfig, PipelineConfig, num_cores

CLASSES = [cls for _, cls in inspect.getmembers(config, dataclasses.is_dataclass) if cls.__module__ == config.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_it_is_frozen_and_takes_no_unknown_or_positional_option(cls: type) -> None:
    made = cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(made)[0].name, 1)
    with pytest.raises(TypeError):
        cls(wokers=1)
    with pytest.raises(TypeError):
        cls(1)


def test_every_field_but_those_that_hold_a_stage_has_a_docstring() -> None:
    for node in ast.parse(inspect.getsource(config)).body:
        if not isinstance(node, ast.ClassDef) or node.name == PipelineConfig.__name__:
            continue
        for field, follower in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                documented = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
                assert documented, f"{node.name}.{ast.unparse(field.target)}"


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_outside_1_to_100_is_refused(quality: int) -> None:
    with pytest.raises(ValueError, match=f"got {quality}"):
        EncodeConfig(quality=quality)


@pytest.mark.parametrize(("batch", "tuned"), [(None, GPU_BATCH), (8, GPU_BATCH), (64, 64)])
def test_packages_are_tuned_for_the_batch_of_a_run_if_it_is_larger_than_the_default(
    batch: int | None, tuned: int
) -> None:
    config = PipelineConfig(batch=BatchConfig(size=batch), generate=GenerateConfig(sides=(512,)))
    assert config.translator == GenerateConfig(sides=(512,), tuned_batch=tuned)


def test_threads_follow_the_cores_this_process_may_use() -> None:
    assert PipelineConfig().decode.workers == PipelineConfig().encode.workers == num_cores() >= 1
