"""Liveness and readiness of this process, and the HTTP server that reports them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from engine.errors import SetupError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)


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
        self._reasons: dict[str, tuple[str, float]] = {}  # with the time since when

    def expect(self, name: str, limit_s: float) -> None:
        """Require a heartbeat `name` at least every `limit_s` seconds from now on."""
        with self._lock:
            self._limits_s[name] = limit_s
            self._beats[name] = self._clock()

    def beat(self, name: str) -> None:
        """Record a heartbeat."""
        self._beats[name] = self._clock()

    def require(self, name: str, holds: bool, reason: str = "") -> None:
        """Set whether readiness condition `name` holds; `reason` describes why it does not, or what is being done."""
        with self._lock:
            self._conditions[name] = holds
            if holds or not reason:
                self._reasons.pop(name, None)
            elif name not in self._reasons or self._reasons[name][0] != reason:
                self._reasons[name] = reason, self._clock()

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
        """Return the reasons of unmet conditions by name, each with the seconds since it was first given."""
        now_s = self._clock()
        with self._lock:
            return {name: f"{reason}, {now_s - since_s:.0f} s" for name, (reason, since_s) in self._reasons.items()}


class HealthServer:
    """Serve `/healthz`, `/readyz` and `/metrics`; status 200, or 503 with the failed checks and their reasons."""

    def __init__(self, host: str, port: int, health: Health, metrics: WSGIApplication) -> None:
        """Start listening; raises `SetupError` if the address cannot be bound.

        `metrics` is the WSGI application behind `/metrics`.
        """

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            match environ["PATH_INFO"]:
                case "/metrics":
                    return metrics(environ, start_response)
                case "/healthz":
                    return _answer(start_response, health.silent(), {})
                case "/readyz":
                    return _answer(start_response, health.missing(), health.reasons())
                case _:
                    start_response("404 Not Found", [("Content-Type", "text/plain")])
                    return [b"/healthz, /readyz or /metrics\n"]

        try:
            self._server = make_server(host, port, app, _QuietServer, _QuietHandler)
        except OSError as error:
            raise SetupError(
                f"Metrics cannot be served at {host}:{port}: {error.strerror}; choose another --metrics-port."
            ) from error
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


def _answer(start_response: StartResponse, failed: list[str], reasons: dict[str, str]) -> list[bytes]:
    status = "503 Service Unavailable" if failed else "200 OK"
    body = {"ok": not failed, "waiting_for": failed, **({"reasons": reasons} if reasons else {})}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]


class _QuietServer(ThreadingMixIn, WSGIServer):
    """A thread for each request, and no traceback for a client that goes away before it has its answer."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (the base class decides)
        log.debug("A request from %s failed", client_address, exc_info=True)


class _QuietHandler(WSGIRequestHandler):
    timeout = 10  # seconds; a client that sends nothing must not occupy a thread

    def log_message(self, format: str, *args: object) -> None:
        """Discard the access log; probes arrive every few seconds."""
