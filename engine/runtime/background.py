"""Compile a generator in another process while a run goes on with PyTorch's own kernels.

Compiling takes about a minute of one core, which only a long run earns back. How long a run will take is not
guessed but measured: once its batches have shown that more than `WORTH_COMPILING_S` remain, a child process compiles,
runs the parity check, and leaves both in the package cache. The run then loads the package and goes on with it. Images
before and after the change may differ by as much as the parity check allows.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch

from engine.config import GenerateConfig
from engine.errors import EngineError
from engine.model.card import Card
from engine.model.network import build_generator
from engine.model.weights import Generator
from engine.runtime.backends.base import Backend
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.cache import PackageCache
from engine.runtime.select import Choice, choose_backend, measured_rates
from engine.system.compiler import find_compiler

log = logging.getLogger(__name__)

WORTH_COMPILING_S = 60.0
"""Remaining time of a run from which compiling pays off; an unbounded run is expected to last six times as long as it
has lasted so far."""

_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from engine.runtime import background as b; b.main()"


class BackgroundCompilation:
    """One attempt to replace the eager backend of a run; thread-safe."""

    def __init__(self, generator: Generator, config: GenerateConfig, precision: str) -> None:
        """Prepare to compile `generator` in `precision`, which the eager backend passed the parity check with."""
        self._generator = generator
        self._config = config
        self._precision = precision
        self._pixels = 0
        self._seconds = 0.0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self.finished = False
        """Whether there is nothing more to wait for."""

    @classmethod
    def if_possible(
        cls,
        generator: Generator,
        config: GenerateConfig,
        device: torch.device,
        packages: PackageCache,
        backend: Backend,
    ) -> BackgroundCompilation | None:
        """Return a compilation where a compiled backend may replace `backend`, else None."""
        replaceable = config.backend == "auto" and device.type == "cpu" and backend.name == EagerBackend.name
        if not replaceable or find_compiler() is None or measured_rates(generator, config, device, packages):
            return None
        return cls(generator, config, backend.precision)

    def observe(self, num_pixels: int, seconds: float) -> None:
        """Record a translated batch, and start compiling once the rest of the run is worth it."""
        with self._lock:
            self._pixels += num_pixels
            self._seconds += seconds
            if self._child is None and not self.finished and self._remaining_s() > WORTH_COMPILING_S:
                self._start()

    def result(self) -> tuple[Backend, str] | None:
        """Return the compiled backend and why it is used, once, when the child process has finished; else None."""
        with self._lock:
            if self.finished or self._child is None or self._child.poll() is None:
                return None
            self.finished = True
            atexit.unregister(self.close)
            output = b"" if self._child.stdout is None else self._child.stdout.read()
            self._close_files()
        try:
            choice = Choice(**json.loads(output.splitlines()[-1]), why="compiled during this run")
            if choice.name != InductorBackend.name:
                return None  # refused by the parity check: the child's log says so
            return choose_backend(self._generator, self._config, [choice])
        except (ValueError, IndexError, TypeError, EngineError) as error:
            log.warning("Compiling in the background failed (%s); the run goes on without.", error or "no output")
            return None

    def close(self) -> None:
        """Stop the child process, if there is one."""
        with self._lock:
            self.finished = True
            if self._child is not None and self._child.poll() is None:
                with suppress(ProcessLookupError):  # the whole group: the compiler is a process of its own
                    os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()
            self._close_files()

    def _remaining_s(self) -> float:
        expected = self._config.expected_pixels
        if expected is None:
            return 6 * self._seconds
        return max(0, expected - self._pixels) * self._seconds / max(1, self._pixels)

    def _start(self) -> None:
        log.info("Compiling %s in the background, for the rest of this run and later ones.", self._generator.card.name)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        description = tempfile.TemporaryFile()  # noqa: SIM115
        _write_description(description, self._generator, self._config, self._precision)
        command = [sys.executable, "-c", _CHILD, json.dumps(sys.path)]
        self._child = subprocess.Popen(
            command,
            stdin=description,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        description.close()
        atexit.register(self.close)

    def _close_files(self) -> None:
        for file in (self._child and self._child.stdout, self._errors):
            if file:
                file.close()


def main() -> None:
    """Compile what standard input describes, and print the backend that passed the parity check, as JSON."""
    generator, config, precision = _read_description(sys.stdin.buffer.read())
    ladder = [precision, *(["fp32"] if precision != "fp32" and config.precision == "auto" else [])]
    candidates = [Choice(InductorBackend.name, name) for name in ladder]
    backend, _ = choose_backend(generator, config, [*candidates, Choice(EagerBackend.name, "fp32")])
    sys.stdout.write(json.dumps({"name": backend.name, "precision": backend.precision}) + "\n")


def _write_description(file: IO[bytes], generator: Generator, config: GenerateConfig, precision: str) -> None:
    content: dict[str, Any] = {
        "state": generator.module.state_dict(),
        "card": generator.card.to_json(),
        "sha256": generator.sha256,
        "precision": precision,
        "config_precision": config.precision,
        "trunk": config.trunk,
        "cache": None if config.cache is None else str(config.cache.absolute()),
    }
    torch.save(content, file)
    file.seek(0)


def _read_description(data: bytes) -> tuple[Generator, GenerateConfig, str]:
    content = torch.load(io.BytesIO(data), weights_only=True)
    card = Card.from_json(content["card"])
    module = build_generator(card.architecture).eval().requires_grad_(False)
    module.load_state_dict(content["state"])
    cache = None if content["cache"] is None else Path(content["cache"])
    settings = {"precision": content["config_precision"], "trunk": content["trunk"]}
    config = replace(GenerateConfig(device="cpu", cache=cache), **settings)
    return Generator(module, card, content["sha256"]), config, content["precision"]
