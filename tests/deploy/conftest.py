"""Fixtures of the tests with real workers: a broker and a model, as in tests/stream."""

from tests.stream.conftest import broker, model

__all__ = ["broker", "model"]
