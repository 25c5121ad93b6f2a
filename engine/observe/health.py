"""Whether this process lives and whether it is ready, and the small web server that tells."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from engine.errors import SetupError


class Health:
    """Named heartbeats and conditions; every method is cheap and safe to call from any thread.

    Alive means that each heartbeat came within its limit. Ready means that, and that each condition holds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limits_s: dict[str, float] = {}
        self._beats: dict[str, float] = {}
        self._conditions: dict[str, bool] = {}

    def expect(self, name: str, limit_s: float) -> None:
        """Demand a heartbeat called `name` at least every `limit_s` seconds, the first from now on."""
        with self._lock:
            self._limits_s[name] = limit_s
            self._beats[name] = self._clock()

    def beat(self, name: str) -> None:
        """Take a heartbeat."""
        self._beats[name] = self._clock()

    def require(self, name: str, holds: bool) -> None:
        """Set a condition of being ready."""
        with self._lock:
            self._conditions[name] = holds

    def silent(self) -> list[str]:
        """Name the heartbeats that are overdue."""
        now_s = self._clock()
        with self._lock:
            return [name for name, limit_s in self._limits_s.items() if now_s - self._beats[name] > limit_s]

    def missing(self) -> list[str]:
        """Name what keeps this process from being ready."""
        with self._lock:
            conditions = [name for name, holds in self._conditions.items() if not holds]
        return conditions + self.silent()


class HealthServer:
    """Serves `/healthz`, `/readyz` and `/metrics`: 200 when all is well, 503 with what is not."""

    def __init__(self, host: str, port: int, health: Health, exposition: Callable[[], bytes]) -> None:
        """Listen at once; raises `SetupError` when the address cannot be had."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds; a client that says nothing must not keep a thread

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._tell(health.silent())
                elif self.path == "/readyz":
                    self._tell(health.missing())
                elif self.path.split("?")[0] == "/metrics":
                    self._send(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
                else:
                    self._send(404, "text/plain", b"/healthz, /readyz or /metrics\n")

            def _tell(self, wrong: list[str]) -> None:
                body = json.dumps({"ok": not wrong, "waiting_for": wrong}).encode() + b"\n"
                self._send(503 if wrong else 200, "application/json", body)

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise SetupError(
                f"Metrics cannot be served at {host}:{port}: {error.strerror}; choose another --metrics-port."
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
