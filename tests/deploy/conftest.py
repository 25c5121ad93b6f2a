"""A broker and a model for the tests with real workers, as in tests/stream."""

from tests.stream.conftest import broker, model

__all__ = ["broker", "model"]
