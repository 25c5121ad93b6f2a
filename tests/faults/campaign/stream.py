"""Kill and stop workers, their broker, their source and their sink while jobs arrive; then count what became of them.

The faults, their order and who meets them follow from the seed; only the moment that a fault hits depends on the
machine. A portion of the jobs is sent before each fault, so that none hits an idle group.
"""

from __future__ import annotations

import io
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError
from PIL import Image

from engine.errors import EngineError
from tests.faults.campaign.checks import Broken, Counts, require
from tests.faults.campaign.mounts import may_mount, read_only, small_disk, without_override
from tests.stream.brokers import DurableBroker
from tests.stream.stream import Stream, photo, tiny_model

PARTITIONS = 8
SESSION_S = 6.0
_STOPPED_S = 9.0
_READY_S = 90.0
_END_S = 420.0
_DISK_BYTES = 48 << 20

KILLER = """
import os, signal
from engine.codec.decode import Decoder
decode = Decoder.__call__
def killed(self, chunk):
    if any(item.key.startswith("pill") and hasattr(item, "payload") for item in chunk):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return decode(self, chunk)
Decoder.__call__ = killed
"""
"""Code that makes a worker die of jobs whose id begins with `pill`."""

_REFUSALS = (
    "Nothing listens at",
    "does not answer as Kafka does",
    "The offsets of the group",
    "is not a folder",
    "Results cannot be written to",
)
"""What a worker may say that starts while the broker, the source or the sink is away; it is started again."""


@dataclass(frozen=True)
class Fault:
    """One disturbance."""

    kind: str
    worker: int
    """Which of the workers that are members at the time, modulo their number."""
    after_s: float
    """Time since the last portion of jobs."""
    lasts_s: float = 0.0


OTHERS = ("broker", "full sink", "read-only sink", "source away")
"""Faults that meet all workers."""


def plan(moods: random.Random, kills: int, stops: int, others: Sequence[str], workers: int) -> list[Fault]:
    """Return the faults of a campaign in their order."""
    kinds = ["SIGKILL"] * kills + ["SIGSTOP"] * stops + [*others]
    moods.shuffle(kinds)
    lasts_s = {"SIGSTOP": _STOPPED_S, "broker": 4.0, "full sink": 6.0, "read-only sink": 6.0, "source away": 6.0}
    return [Fault(kind, moods.randrange(workers), moods.uniform(0.1, 1.5), lasts_s.get(kind, 0.0)) for kind in kinds]


def stream(
    seed: int,
    jobs: int,
    kills: int,
    stops: int,
    *,
    others: Sequence[str] = OTHERS,
    workers: int = 3,
    pills: int = 2,
    logs: Path | None = None,
) -> Counts:
    """Run the campaign; the logs of the workers are kept in `logs` when something is broken."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        folder = Path(name)
        folder.chmod(0o755)
        broker = opened.enter_context(DurableBroker(folder / "broker"))
        moods = random.Random(seed)
        campaign = _Campaign(broker, folder / "stream", moods, opened)
        try:
            campaign.run(jobs, plan(moods, kills, stops, others, workers), workers, pills)
        except (Broken, AssertionError):
            if logs is not None:
                shutil.copytree(folder, logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("in", "out"))
            raise
        return campaign.counts


class _Campaign:
    def __init__(self, broker: DurableBroker, folder: Path, moods: random.Random, opened: ExitStack) -> None:
        self.counts = Counts()
        self._broker = broker
        self._moods = moods
        folder.mkdir()
        model = tiny_model(folder / "tiny.safetensors")
        # This broker ends a fetch after its wait even when the object store has not answered yet: without messages
        # where that takes longer, and so for ever.
        self._stream = Stream(broker.address, folder, model, partitions=PARTITIONS, fetch_wait_ms=15_000)
        opened.callback(self._stream.close)
        self._disk = self._stream.outputs
        self._disk.mkdir()
        if may_mount():
            opened.enter_context(small_disk(self._disk, _DISK_BYTES))
        self._prefix = without_override()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._number_of: dict[int, int] = {}  # of a worker's log, by process number
        self._good: set[str] = set()
        self._broken: set[str] = set()
        self._pills: set[str] = set()
        self._sent = 0

    def run(self, jobs: int, faults: Sequence[Fault], workers: int, num_pills: int) -> None:
        """Send, disturb, and check what is left."""
        pills = set(self._moods.sample(range(jobs), num_pills))
        self._workers = [self._start() for _ in range(workers)]
        for number, fault in enumerate(faults):
            first, after = (jobs * i // len(faults) for i in (number, number + 1))
            self._send(range(first, after), pills)
            time.sleep(fault.after_s)
            self._disturb(fault)
            self._tend()
        self._finish()
        self._send_lost_suspects()
        self._check()

    # ---- jobs ----

    def _send(self, numbers: range, pills: set[int]) -> None:
        """Send jobs of which 2 % are broken and 5 % are sent twice."""
        for i in numbers:
            kind, id, data = self._good, f"job-{i}", photo(i)
            if i in pills:
                kind, id = self._pills, f"pill-{i}"
            elif self._moods.random() < 0.02:
                kind, data = self._broken, b"\xff\xd8 no image"
            kind.add(id)
            source = self._stream.add_photo(f"{i}.jpg", data)
            times = 2 if kind is self._good and self._moods.random() < 0.05 else 1
            self.counts["jobs sent twice"] += times - 1
            for _ in range(times):
                self._stream.submit(id=id, source=source, output=f"{i:05d}.jpg")
                self._sent += 1
        self._stream.flush()

    # ---- workers ----

    def _start(self) -> subprocess.Popen[bytes]:
        options = ("--session-timeout", f"{SESSION_S:g}", "--max-crashes", "2", "--fetch-wait", "0.5")
        worker = self._stream.process(*options, wait=False, change=KILLER, prefix=self._prefix or ())
        self._number_of[worker.pid] = len(self._number_of)
        return worker

    def _log(self, worker: subprocess.Popen[bytes]) -> list[str]:
        return self._stream.log(self._number_of[worker.pid]).read_text(errors="replace").splitlines()

    def _tend(self) -> None:
        """Start workers again that have ended, and count why they had."""
        for i, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            if worker.returncode == -signal.SIGKILL:
                self.counts["workers killed by a pill"] += 1
            else:
                said = [line for line in self._log(worker) if "solstice: " in line]
                refusal = next((words for words in _REFUSALS for line in said if words in line), None)
                where = f"log {self._number_of[worker.pid]}: {self._log(worker)[-3:]}"
                require(worker.returncode == 2 and refusal, f"a worker ended with {worker.returncode}, {where}")
                self.counts[f'workers that did not start ("{refusal}")'] += 1
            self._workers[i] = self._start()

    def _members(self) -> list[subprocess.Popen[bytes]]:
        """Wait for a worker that has joined the group, and return all that have."""
        until_s = time.monotonic() + _READY_S
        while True:
            self._tend()
            members = [w for w in self._workers if any("Assigned partitions" in line for line in self._log(w))]
            if members:
                return members
            require(time.monotonic() < until_s, f"no worker joined within {_READY_S:.0f} s")
            time.sleep(0.2)

    # ---- faults ----

    def _disturb(self, fault: Fault) -> None:
        if fault.kind in ("SIGKILL", "SIGSTOP"):
            members = self._members()
            victim = members[fault.worker % len(members)]
            if fault.kind == "SIGKILL":
                self._kill(victim)
            else:
                self._stop(victim, fault.lasts_s)
            return
        with self._away(fault.kind) as what:
            self.counts[what] += 1
            until_s = time.monotonic() + fault.lasts_s
            while time.monotonic() < until_s:
                time.sleep(0.2)
                self._tend()

    def _kill(self, victim: subprocess.Popen[bytes]) -> None:
        if victim.poll() is None:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            self.counts["SIGKILLs"] += 1
            self._workers[self._workers.index(victim)] = self._start()

    def _stop(self, victim: subprocess.Popen[bytes], seconds: float) -> None:
        victim.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        victim.send_signal(signal.SIGCONT)
        self.counts["SIGSTOPs past the session time-out"] += 1

    @contextmanager
    def _away(self, kind: str) -> Iterator[str]:
        """Take something away for the body of a `with`; yields what that is called in the counts."""
        if kind == "broker":
            self._broker.kill()
            try:
                yield "brokers killed and started again"
            finally:
                self._broker.start()
        elif kind == "source away":
            away = self._stream.inputs.with_name("away")
            self._stream.inputs.rename(away)
            try:
                yield "sources away"
            finally:
                away.rename(self._stream.inputs)
        elif kind == "full sink":
            if not self._disk.is_mount():
                yield "full sinks not tried (mounting is not permitted)"
                return
            filler = self._disk / ".filler"
            _fill(filler)
            try:
                yield "sinks full"
            finally:
                filler.unlink()
        elif self._prefix is None:
            yield "read-only sinks not tried (setpriv cannot limit root)"
        else:
            with read_only(self._disk):
                yield "sinks read-only"

    # ---- the end ----

    def _finish(self) -> None:
        """Wait until every job sent has been committed."""
        until_s = time.monotonic() + _END_S
        while (done := self._committed()) < self._sent:
            require(time.monotonic() < until_s, f"{done} of {self._sent} jobs committed {_END_S:.0f} s after the last")
            time.sleep(1.0)
            self._tend()

    def _committed(self) -> int:
        with suppress(KafkaError, EngineError):
            return self._stream.committed()
        return 0

    def _send_lost_suspects(self) -> None:
        """Send jobs again that became dead letters because workers were killed beside them, as `replay` does."""
        letters = self._dead_letters()
        lost = sorted(self._good & letters.keys() - _done(self._results())) if self._good & letters.keys() else []
        for id in lost:
            require("workers crashed" in letters[id], f"{id} became a dead letter: {letters[id]}")
        for id in lost:
            number = int(id.removeprefix("job-"))
            source = (self._stream.inputs / f"{number}.jpg").as_uri()
            self._stream.submit(id=id, source=source, output=f"{number:05d}.jpg")
            self._sent += 1
        self.counts["good jobs taken for pills, and sent again"] = len(lost)
        self._stream.flush()
        self._finish()

    def _results(self) -> list[dict[str, Any]]:
        return self._stream.results(len(self._good | self._broken | self._pills), seconds=300)

    def _dead_letters(self) -> dict[str, str]:
        """Return the reason of each dead letter by its job's id."""
        letters = self._stream.dead_letters(len(self._broken | self._pills), seconds=300)
        return {letter.key.decode(): dict(letter.headers)["solstice-reason"].decode() for letter in letters}

    def _check(self) -> None:
        results, letters, files = self._results(), self._dead_letters(), self._stream.files()
        done = _done(results)
        require(self._good <= done, f"lost: {sorted(self._good - done)[:5]}")
        bad = self._broken | self._pills
        require(bad <= letters.keys(), f"without a dead letter: {sorted(bad - letters.keys())[:5]}")
        require(not bad & done, f"broken, and done all the same: {sorted(bad & done)[:5]}")
        expected = {f"{int(id.removeprefix('job-')):05d}.jpg" for id in self._good}
        require(files.keys() == expected, f"files: {sorted(files.keys() ^ expected)[:5]}")
        for path, data in files.items():
            _require_whole(path, data)
        for pill in self._pills:
            require("workers crashed" in letters[pill], f"{pill} became a dead letter: {letters[pill]}")
        tracebacks = [line for worker in self._workers for line in self._log(worker) if line.startswith("Traceback")]
        require(not tracebacks, "a worker logged a traceback")
        self.counts["good jobs stored"] = len(self._good)
        self.counts["broken jobs in the dead letters"] = len(self._broken)
        self.counts["pills in the dead letters"] = len(self._pills)
        self.counts["duplicates answered without translating"] = sum("duplicate" in result for result in results)
        self.counts["results beside the first of each job"] = len(results) - len(self._good) - len(bad)


def _done(results: Sequence[Mapping[str, Any]]) -> set[str]:
    return {result["id"] for result in results if result["status"] == "done"}


def _fill(path: Path) -> None:
    """Fill the file system of `path`."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _require_whole(path: str, data: bytes) -> None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size = image.size
    except OSError as error:
        raise Broken(f"half-written: {path}: {error}") from error
    require(size == (32, 32), f"{path} is {size}")
