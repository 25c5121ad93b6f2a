"""Liveness and readiness of this process, and the HTTP server that reports them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from engine.errors import SetupError


class Health:
    """Named heartbeats and conditions; all methods are cheap and thread-safe.

    A process is alive if every heartbeat came within its limit, and ready if in addition every condition holds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limits_s: dict[str, float] = {}
        self._beats: dict[str, float] = {}
        self._conditions: dict[str, bool] = {}
        self._reasons: dict[str, str] = {}

    def expect(self, name: str, limit_s: float) -> None:
        """Require a heartbeat `name` at least every `limit_s` seconds from now on."""
        with self._lock:
            self._limits_s[name] = limit_s
            self._beats[name] = self._clock()

    def beat(self, name: str) -> None:
        """Record a heartbeat."""
        self._beats[name] = self._clock()

    def require(self, name: str, holds: bool, reason: str = "") -> None:
        """Set whether readiness condition `name` holds; `reason` says in words why it does not."""
        with self._lock:
            self._conditions[name] = holds
            self._reasons[name] = "" if holds else reason

    def silent(self) -> list[str]:
        """Return the names of overdue heartbeats."""
        now_s = self._clock()
        with self._lock:
            return [name for name, limit_s in self._limits_s.items() if now_s - self._beats[name] > limit_s]

    def missing(self) -> list[str]:
        """Return the names of unmet conditions and overdue heartbeats."""
        with self._lock:
            conditions = [name for name, holds in self._conditions.items() if not holds]
        return conditions + self.silent()

    def reasons(self) -> dict[str, str]:
        """Return the reasons of unmet conditions that have one, by name."""
        with self._lock:
            return {name: reason for name, reason in self._reasons.items() if reason}


class HealthServer:
    """Serve `/healthz`, `/readyz` and `/metrics`; status 200, or 503 with the names of failed checks."""

    def __init__(self, host: str, port: int, health: Health, exposition: Callable[[], bytes]) -> None:
        """Start listening; raises `SetupError` if the address cannot be bound."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds; a client that sends nothing must not occupy a thread

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._report(health.silent())
                elif self.path == "/readyz":
                    self._report(health.missing())
                elif self.path.split("?")[0] == "/metrics":
                    self._send(200, "text/plain; version=0.0.4; charset=utf-8", exposition())
                else:
                    self._send(404, "text/plain", b"/healthz, /readyz or /metrics\n")

            def _report(self, failed: list[str]) -> None:
                body = json.dumps({"ok": not failed, "waiting_for": failed}).encode() + b"\n"
                self._send(503 if failed else 200, "application/json", body)

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Discard the access log; probes arrive every few seconds."""

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
        """Listening port."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
