"""A broker for the stream tests: the one that SOLSTICE_TEST_KAFKA=host:port names, or one that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stream.brokers import noida, tansu
from tests.stream.stream import Stream, tiny_model

GIVEN = os.environ.get("SOLSTICE_TEST_KAFKA")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a broker that handles everything but members that vanish."""
    if GIVEN:
        yield GIVEN
        return
    with noida(tmp_path_factory.mktemp("noida") / "data") as address:
        yield address


@pytest.fixture(scope="session")
def strict_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a broker that notices members that vanish."""
    if GIVEN:
        yield GIVEN
        return
    with tansu(tmp_path_factory.mktemp("tansu") / "log") as address:
        yield address


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny generator's file."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after two seconds on brokers that cannot be reached."""
    monkeypatch.setattr("engine.stream.connection.BOOTSTRAP_S", 2.0)


@pytest.fixture
def stream(broker: str, model: Path, tmp_path: Path) -> Iterator[Stream]:
    """Give topics and folders for one test."""
    made = Stream(broker, tmp_path, model)
    yield made
    made.close()


@pytest.fixture
def strict_stream(strict_broker: str, model: Path, tmp_path: Path) -> Iterator[Stream]:
    """Give topics and folders at the broker that notices members that vanish."""
    made = Stream(strict_broker, tmp_path, model)
    yield made
    made.close()
