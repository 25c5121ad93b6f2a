"""Addresses at which no Ray cluster answers. Runs on real clusters are in tests/distributed."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from engine.archive.distributed import cluster
from engine.archive.distributed.cluster import LOCAL, check_address, require_ray
from engine.errors import SetupError


@pytest.fixture(autouse=True)
def not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the cluster that other tests of the same process are connected to."""
    if "ray" in sys.modules:
        monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.needs_ray
@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1: Connection refused; start it, or check --address"),
        ("no-such-host.invalid", r"No Ray cluster answers at no-such-host\.invalid:6379: .*; start it"),
        ("127.0.0.1:http", r'--address "127\.0\.0\.1:http" is not HOST:PORT or auto'),
        ("127.0.0.1:70000", "is not HOST:PORT or auto"),
        ("ray://127.0.0.1:10001", "run this command on a node of the cluster, such as by `ray job submit`"),
    ],
)
def test_an_address_that_does_not_answer_is_one_sentence(address: str, complaint: str) -> None:
    with pytest.raises(SetupError, match=complaint) as caught:
        check_address(address)
    assert "\n" not in str(caught.value)


@pytest.mark.needs_ray
def test_something_else_that_answers_is_one_sentence(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "HEALTH_TIMEOUT_S", 1.0)
    with pytest.raises(SetupError, match=r"answers, but not as a working Ray cluster .*; check --address\.$"):
        check_address(f"127.0.0.1:{silent_port}")


@pytest.mark.needs_ray
def test_without_an_address_the_cluster_is_that_of_the_environment_or_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert check_address(None) == LOCAL
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SetupError, match=r"No Ray cluster answers at 127\.0\.0\.1:1"):
        check_address(None)


def test_without_ray_the_sentence_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SetupError, match=r"^Ray is not installed: pip install .*\[ray\]'\.$"):
        require_ray()
