"""Connect to a Ray cluster, or start one on this machine, in bounded time and with one sentence when that fails."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from engine.config import num_cores
from engine.errors import SetupError
from engine.system.extras import install_hint
from engine.system.storage import clause

LOCAL = "local"
"""Address of a cluster that is started on this machine for one run."""

CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 20.0

_DEFAULT_PORT = 6379
_OBJECT_STORE_BYTES = 256 << 20  # for messages alone; photos never pass through it

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report to its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns about its own future
}


@dataclass(frozen=True)
class Cluster:
    """What the nodes of a cluster have."""

    address: str
    num_nodes: int
    num_cpus: int
    num_gpus: int
    cpus_of_smallest_node: int


def require_ray() -> None:
    """Raise `SetupError` where Ray is not installed; switch its usage reports off, unless the user has asked for them.

    Call it before Ray is imported for the first time.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: F401
    except ImportError:
        raise SetupError(f"Ray is not installed: {install_hint('ray')}.") from None


def check_address(address: str | None) -> str:
    """Return the address to use: the given one, that of `$RAY_ADDRESS`, or a cluster of this machine alone.

    Raises `SetupError` within `CONNECT_TIMEOUT_S` and `HEALTH_TIMEOUT_S` when no Ray cluster answers there; connecting
    by Ray itself would take two minutes to fail.
    """
    require_ray()
    import ray

    if ray.is_initialized():
        connected_to = str(ray.get_runtime_context().gcs_address)
        if address not in (None, "auto", connected_to):
            raise SetupError(
                f"This process is connected to the Ray cluster at {connected_to}, not to {address}; call ray.shutdown "
                "first."
            )
        return connected_to
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        return address
    if "://" in address:
        raise SetupError(
            f'"{address}" cannot be used: run this command on a node of the cluster, such as by `ray job submit`, and '
            "name it by HOST:PORT or auto."
        )
    if address != "auto":
        host, port = _host_and_port(address)
        address = f"{host}:{port}"
        try:
            socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            reason = error.strerror or str(error) or "no answer"
            raise SetupError(f"No Ray cluster answers at {address}: {reason}; start it, or check --address.") from None
    if not _is_healthy(address):
        raise SetupError(
            "--address auto: no Ray cluster of this machine answers; start one with `ray start --head`."
            if address == "auto"
            else f"{address} answers, but not as a working Ray cluster of version {ray.__version__}; check --address."
        )
    return address


def _is_healthy(address: str) -> bool:
    """Ask in a process of its own, because Ray may end the process that asks, and may wait for minutes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        return subprocess.run(command, capture_output=True, timeout=HEALTH_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = address, str(_DEFAULT_PORT)
    if not port.isdigit() or not host or not 0 < int(port) < 65536:
        raise SetupError(f'--address "{address}" is not HOST:PORT or auto.')
    return host.strip("[]"), int(port)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a checked address for a `with` block; a connection that is there already is used and stays."""
    import ray

    if ray.is_initialized():
        yield _described(address)
        return
    try:
        _connect(address)
        cluster = _described(address)
    except SystemExit:  # by Ray's handler of the signal by which it ends a process that lost its cluster
        raise SetupError(f"The Ray cluster at {address} went away; start it again, or check --address.") from None
    except Exception as error:
        raise SetupError(f"The Ray cluster at {address} cannot be used from this machine: {clause(error)}.") from error
    try:
        yield cluster
    finally:
        with suppress(Exception):
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    if address == LOCAL:
        ray.init(
            address=LOCAL,
            num_cpus=num_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def _described(address: str) -> Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus = [int(resources.get("CPU", 0)) for resources in nodes]
    with_cpus = [number for number in cpus if number] or [1]
    return Cluster(
        address=address,
        num_nodes=len(with_cpus),
        num_cpus=sum(with_cpus),
        num_gpus=int(sum(resources.get("GPU", 0) for resources in nodes)),
        cpus_of_smallest_node=min(with_cpus),
    )
