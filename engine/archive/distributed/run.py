"""The driver of a run on Ray: gives shares to actors, and records what they report."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.archive.config import ArchiveConfig
from engine.archive.convert import NOTHING_TO_DO
from engine.archive.distributed.cluster import Cluster, check_address, connected
from engine.archive.distributed.shares import MAX_DEATHS, Shares
from engine.archive.distributed.worker import ArchiveWorker, NodeShare
from engine.archive.manifest import FOLDER
from engine.archive.parallel import backends_of, common_task, handle_message, record_outcome
from engine.archive.parallel_child import ShareTask
from engine.archive.parallel_messages import ChildMessage, ImagesEnded, RunStopped
from engine.archive.plan import PlannedInput
from engine.archive.report import ReportKind
from engine.archive.run import ArchiveRun, Progress, RunRequest, Summary, started_run
from engine.archive.source import origin_of
from engine.config import PipelineConfig
from engine.errors import SetupError, StopRun
from engine.listing import printable
from engine.model.weights import Generator
from engine.observe.metrics import Metrics
from engine.records import Failed, Outcome
from engine.system.storage import clause
from engine.system.versions import installed

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
"""Seconds until the first actor must have started, in which a cluster may add nodes."""

MAX_DEATHS_IN_A_ROW = 5
"""Deaths of actors without one ended input between them, after which the run stops."""

_WAIT_S = 1.0


def convert_on_ray(
    src: str | Path,
    dst: str | Path,
    model: str | Path | Generator,
    config: PipelineConfig | None = None,
    *,
    address: str | None = None,
    actors: int | None = None,
    archive: ArchiveConfig | None = None,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
) -> Summary:
    """Translate as `engine.archive.convert.convert` does, by actors on a Ray cluster.

    All nodes must see `src` and `dst`, by a shared file system or as URLs. The manifest, its lock and the report page
    are written by this process alone. Inputs that a worker had when it died are translated by another one; an input
    with which workers die again and again has failed.

    Args:
        src: As for `convert`.
        dst: As for `convert`.
        model: Name of a model, its file, or a loaded generator; nodes get it through Ray.
        config: Settings of the pipeline. Threads are chosen for each actor's cores.
        address: HOST:PORT of a cluster that this machine is a node of, or `auto` for the one it is in; None is
            `$RAY_ADDRESS`, and a cluster on this machine alone where that is not set. An existing connection is used.
        actors: Number of actors; None is one for each GPU, or one for each node of a cluster without GPUs.
        archive: As for `convert`.
        report: As for `convert`.
        progress: As for `convert`.
        metrics: As for `convert`.

    Raises the errors of `convert`; `SetupError` when the address does not answer, `StopRun` when no actor can work.
    """
    request = RunRequest.of(src, dst, model, config, archive, report=report, progress=progress, metrics=metrics)
    address = check_address(address)
    with started_run(request) as run:
        if not run.plan.todo:
            run.start()
            return run.summary(NOTHING_TO_DO)
        with connected(address) as cluster, _token(run) as token:
            placement = _placement(cluster, actors, request)
            task = common_task(request, run, request.generator)
            pool = ActorPool(run, task, placement, _node(request, placement, token))
            run.start()
            with pool.started(), _loss_of_cluster(address):
                outcomes = pool.outcomes()
                next(outcomes)  # waits until one model is loaded, which is not part of the run's time
                run.follow(outcomes)
        return run.summary(f"{pool.num_actors} actors on Ray: {backends_of(pool.seen)}")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many actors there are, and what each of them takes."""

    actors: int
    cores: int
    """Processor cores of one actor."""
    gpus: int
    """GPUs of one actor: 0 or 1."""
    actors_per_node: int


def _placement(cluster: Cluster, actors: int | None, request: RunRequest) -> Placement:
    """Divide the cluster; raise `SetupError` when it lacks the device that was asked for."""
    asked = request.config.generate.device
    on_gpu = asked.startswith("cuda") or (asked == "auto" and cluster.num_gpus > 0)
    if on_gpu and not cluster.num_gpus:
        raise SetupError(f"The Ray cluster at {cluster.address} has no GPU; use --device cpu, or another cluster.")
    if on_gpu and actors is not None and actors > cluster.num_gpus:
        raise SetupError(
            f"--ray-actors {actors}: the Ray cluster has {cluster.num_gpus} GPUs, and each actor takes one."
        )
    number = actors or (cluster.num_gpus if on_gpu else cluster.num_nodes)
    if number > cluster.num_cpus:
        raise SetupError(f"--ray-actors {number}: the Ray cluster has {cluster.num_cpus} cores, and each needs one.")
    per_node = math.ceil(number / cluster.num_nodes)
    cores = max(1, min(cluster.num_cpus // number, cluster.cpus_of_smallest_node // per_node))
    return Placement(actors=number, cores=cores, gpus=int(on_gpu), actors_per_node=per_node)


def _node(request: RunRequest, placement: Placement, token: Path | None) -> NodeShare:
    """Return what each actor may use of its node, and must find there."""
    return NodeShare(
        device="cuda:0" if placement.gpus else "cpu",
        cores=placement.cores,
        actors_per_node=placement.actors_per_node,
        folder=str(Path.cwd()),
        source=str(request.src),
        token=token,
        version=installed("solstice-engine"),
    )


@contextmanager
def _token(run: ArchiveRun) -> Iterator[Path | None]:
    """Create a file in the output folder, by which other nodes see that it is the same folder."""
    results = run.destination.results
    if results is None:
        yield None
        return
    folder = results.resolve() / FOLDER
    if not folder.is_dir():  # the only result is a file, whose manifest is elsewhere
        yield None
        return
    token = folder / f"ray-{secrets.token_hex(8)}"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


@contextmanager
def _loss_of_cluster(address: str) -> Iterator[None]:
    """Turn what Ray raises when its cluster goes away into `StopRun`."""
    import ray

    try:
        yield
    except SystemExit:  # by Ray's handler of SIGTERM, which it sends to a process that lost its node
        raise StopRun(
            f"The connection to the Ray cluster at {address} has ended; what is done is kept. Run the same command "
            "again to continue."
        ) from None
    except ray.exceptions.RayError as error:
        raise StopRun(
            f"The Ray cluster at {address} cannot be used any more ({clause(error)}); what is done is kept. Run "
            "the same command again to continue."
        ) from error


@dataclass(eq=False)
class RayWorker:
    """An actor as the driver sees it."""

    index: int
    actor: Any
    """Handle of an `ArchiveWorker`."""
    messages: Any
    """Reference to the actor's next messages."""
    name: str = ""
    backend: str = ""
    finished: bool = False
    has_answered: bool = False


@dataclass
class ActorPool:
    """Actors, one after the other in the place of those that died."""

    run: ArchiveRun
    task: ShareTask
    placement: Placement
    node: NodeShare
    seen: list[RayWorker] = field(default_factory=list)
    """All actors that there were, in the order of their start."""

    def __post_init__(self) -> None:
        self._shares = Shares(self.run.plan.todo, self.placement.actors)
        self._workers: list[RayWorker] = []
        self._deaths_in_a_row = 0

    @property
    def num_actors(self) -> int:
        """Actors at the same time."""
        return self.placement.actors

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start the actors, and end those that are left at the end of the `with` block."""
        import ray

        self._arguments = (ray.put(self.task), self.node)
        try:
            for _ in range(self.placement.actors):
                self._start()
            yield
        finally:
            for worker in self._workers:
                with suppress(Exception):  # the cluster may be gone
                    ray.kill(worker.actor)

    def outcomes(self) -> Iterator[Outcome | None]:
        """Record and yield outcomes as actors report them, until every input has ended.

        None means that an actor has loaded its model. Raises `StopRun` when actors die without any progress, or none
        starts; else as `handle_message`.
        """
        import ray

        started_s = time.monotonic()
        while not self._shares.finished:
            references = {worker.messages: worker for worker in self._workers}
            ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
            if not ready:
                ready, _ = ray.wait(list(references), num_returns=1, timeout=_WAIT_S)
            for reference in ready:
                yield from self._answered(references[reference], reference)
            if not any(worker.has_answered for worker in self.seen) and time.monotonic() - started_s > START_TIMEOUT_S:
                raise StopRun(
                    f"Ray has started no actor within {START_TIMEOUT_S:.0f} s: each needs {self._needs()}, which no "
                    "node has free. Wait for other work on the cluster, or choose another --ray-actors."
                )

    def _needs(self) -> str:
        gpu = " and a GPU" if self.placement.gpus else ""
        return f"{self.placement.cores} CPU{gpu}"

    def _start(self) -> None:
        import ray

        index = len(self.seen)
        actor: Any = (
            ray.remote(ArchiveWorker)
            .options(
                num_cpus=self.placement.cores,
                num_gpus=self.placement.gpus,
                scheduling_strategy="SPREAD",
                max_concurrency=4,  # threads that take calls; none of them computes
                max_restarts=0,
            )
            .remote(*self._arguments, index)
        )
        worker = RayWorker(index, actor, actor.messages.remote(), name=f"actor {index}")
        self.seen.append(worker)
        self._workers.append(worker)
        self._feed(worker)

    def _feed(self, worker: RayWorker) -> None:
        given = self._shares.give(worker.index)
        if given:
            worker.actor.give.remote(given)

    def _answered(self, worker: RayWorker, reference: Any) -> Iterator[Outcome | None]:
        """Act on the messages of one call, or on the death of the actor."""
        import ray

        try:
            messages: list[ChildMessage] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # a defect, not a death
            raise RuntimeError(f"{worker.name} failed:\n{error}") from error
        except ray.exceptions.RayError as error:
            yield from self._died(worker, _cause(error))
            return
        worker.has_answered = True
        for message in messages:
            if isinstance(message, RunStopped) and isinstance(message.error, StopRun):
                yield from self._died(worker, str(message.error))
                return
            yield from handle_message(self._first_reports(message, worker), worker, self.run)
        worker.messages = worker.actor.messages.remote()
        self._feed(worker)

    def _first_reports(self, message: ChildMessage, worker: RayWorker) -> ChildMessage:
        """Leave out outcomes of inputs that have ended before."""
        if not isinstance(message, ImagesEnded):
            return message
        first = [outcome for outcome in message.outcomes if self._shares.ended(worker.index, outcome.origin.output)]
        self._deaths_in_a_row = 0 if first else self._deaths_in_a_row
        return ImagesEnded(first, message.measurements)

    def _died(self, worker: RayWorker, cause: str) -> Iterator[Outcome]:
        """Replace a dead actor, and report the inputs that have failed with it."""
        import ray

        self._workers.remove(worker)
        with suppress(Exception):  # it may have reported its end itself, and still be there
            ray.kill(worker.actor)
        failed = self._shares.died(worker.index)
        for planned in failed:
            outcome = _failed(planned, cause)
            record_outcome(outcome, self.run)
            yield outcome
        self._deaths_in_a_row = 0 if failed else self._deaths_in_a_row + 1
        if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise StopRun(
                f"{self._deaths_in_a_row} Ray actors ended in a row before they had translated anything, the last one "
                f"because: {cause.rstrip('.')}. What is done is kept; run the same command again to continue."
            )
        log.warning("%s ended (%s); its inputs are translated by another one.", worker.name, cause.rstrip("."))
        if not self._shares.finished:
            self._start()


def _failed(planned: PlannedInput, cause: str) -> Failed:
    return Failed(
        key=printable(planned.item.key),
        stage="crash",
        reason=f"the worker was killed {MAX_DEATHS} times while it was translated, the last time alone: {cause}",
        origin=origin_of(planned),
    )


def _cause(error: Exception) -> str:
    """Return why an actor died, in a few words."""
    text = str(error)
    if "memory" in text.lower() and ("OOM" in text or "OutOfMemory" in text or "low memory" in text):
        return "the node ran out of memory"
    if "ModuleNotFoundError" in text or "No module named" in text:
        return "Solstice is not installed on its node"
    if "SYSTEM_ERROR" in text or "connection error code 2" in text.lower():
        return "its process was killed"
    if "node" in text.lower() and "died" in text.lower():
        return "its node is gone"
    return clause(error)
