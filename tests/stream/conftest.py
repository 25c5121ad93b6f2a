"""Fixtures of the stream tests. SOLSTICE_TEST_KAFKA=host:port names a broker to use instead of starting one."""

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
    """Address of a broker that starts and rebalances quickly but never removes killed members."""
    if GIVEN:
        yield GIVEN
        return
    with noida(tmp_path_factory.mktemp("noida") / "data") as address:
        yield address


@pytest.fixture(scope="session")
def strict_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker that removes killed members after their session timeout."""
    if GIVEN:
        yield GIVEN
        return
    with tansu(tmp_path_factory.mktemp("tansu") / "log") as address:
        yield address


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a tiny generator."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limit for reaching brokers to two seconds."""
    monkeypatch.setattr("engine.stream.connection.BOOTSTRAP_S", 2.0)


@pytest.fixture
def stream(broker: str, model: Path, tmp_path: Path) -> Iterator[Stream]:
    """Topics and folders for one test, on the quick broker."""
    made = Stream(broker, tmp_path, model)
    yield made
    made.close()


@pytest.fixture
def strict_stream(strict_broker: str, model: Path, tmp_path: Path) -> Iterator[Stream]:
    """Topics and folders for one test, on the broker that removes killed members."""
    made = Stream(strict_broker, tmp_path, model)
    yield made
    made.close()
