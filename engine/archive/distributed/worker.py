"""What runs in a Ray actor: the pipeline of `convert` over the inputs that the driver sends."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.archive.parallel import share_of
from engine.archive.parallel_child import ShareTask, run_share
from engine.archive.parallel_messages import ChildMessage, RunStopped
from engine.archive.plan import PlannedInput
from engine.errors import SetupError
from engine.system.storage import is_url
from engine.system.versions import installed

_TICK_S = 0.5
_BATCH_WAIT_S = 0.5
"""Maximum wait for a batch to fill: the driver gives more inputs only when some have ended."""

_POLL_S = 0.2
"""Seconds that the driver waits for messages at most, within one call."""


@dataclass(frozen=True, kw_only=True)
class NodeShare:
    """What an actor may use of its node, and which folders it must find there."""

    device: str
    cores: int
    actors_per_node: int
    folder: str
    """Current folder of the driver, which relative paths are relative to."""
    source: str
    """Path or URL."""
    token: Path | None
    """File in the output folder that shows that this node sees the same folder; None where there is no folder."""
    version: str
    """Version of Solstice in the driver."""


class ArchiveWorker:
    """Translates inputs in a thread of its own, while the driver sends more and collects messages.

    Ray runs its methods in several threads. It lives until the driver ends it.
    """

    def __init__(self, task: ShareTask, node: NodeShare, index: int) -> None:
        """Start to translate; `index` is different for each actor of the run."""
        self._inputs = InputQueue()
        self._messages = MessageQueue()
        task = replace(task, index=index, inputs=self._inputs, threads=node.cores)
        threading.Thread(target=self._run, args=(task, node), name="translate", daemon=True).start()

    def give(self, inputs: Sequence[PlannedInput]) -> None:
        """Add inputs."""
        self._inputs.add(inputs)

    def messages(self) -> list[ChildMessage]:
        """Return all messages since the last call; wait a moment when there is none."""
        return self._messages.take(_POLL_S)

    def _run(self, task: ShareTask, node: NodeShare) -> None:
        try:
            _require_same_folders(node)
        except SetupError as error:
            self._messages.send(RunStopped(error))
            return
        config = share_of(task.config, node.device, node.actors_per_node)
        config = replace(
            config,
            decode=replace(config.decode, workers=node.cores),
            batch=replace(config.batch, max_wait_s=min(config.batch.max_wait_s, _BATCH_WAIT_S)),
            encode=replace(config.encode, workers=node.cores),
        )
        run_share(replace(task, config=config), self._messages)


def _require_same_folders(node: NodeShare) -> None:
    """Raise `SetupError` when this node has another version, or cannot see the folders of the driver."""
    host = socket.gethostname()
    version = installed("solstice-engine")
    if version != node.version:
        raise SetupError(
            f"The Ray node {host} has version {version} of Solstice, this one is {node.version}; install the same one "
            "everywhere."
        )
    with suppress(OSError):  # needed for relative paths alone, which are then found to be missing
        os.chdir(node.folder)
    advice = "use a folder that all nodes share, or the URL of an object store"
    if not is_url(node.source) and not Path(node.source).exists():
        raise SetupError(f'The Ray node {host} cannot see "{node.source}"; {advice}.')
    if node.token is not None and not node.token.exists():
        raise SetupError(f"The Ray node {host} sees another output folder than this machine; {advice}.")


class InputQueue:
    """Inputs that arrive while they are read; iterating never ends, and yields None when none has come for a while."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[PlannedInput] = deque()

    def add(self, inputs: Sequence[PlannedInput]) -> None:
        """Add inputs, from any thread."""
        with self._changed:
            self._waiting.extend(inputs)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[PlannedInput | None]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting, _TICK_S)
                item = self._waiting.popleft() if self._waiting else None
            yield item


class MessageQueue:
    """Messages that wait for the driver."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[ChildMessage] = []

    def send(self, message: ChildMessage) -> None:
        """Add a message, from any thread."""
        with self._changed:
            self._waiting.append(message)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[ChildMessage]:
        """Return all messages and forget them; wait up to `timeout_s` for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, timeout_s)
            taken, self._waiting = self._waiting, []
            return taken
