"""What a run would do, found without writing anything: `--dry-run`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from engine.archive.destination import open_destination
from engine.archive.manifest import EarlierRuns
from engine.archive.plan import ArchivePlan
from engine.archive.run import RunRequest, open_source, planned
from engine.listing import printable
from engine.system.storage import is_url


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would do."""

    to_convert: int
    """Inputs that would be translated."""
    input_bytes: int
    """Size of these inputs, as far as it is known."""
    skipped: int
    """Inputs that are done already."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """`path` and `error` of each input that would fail before it is decoded."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Result of each input whose own name belongs to another one."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of files and folders that are no inputs, by kind."""
    expected_bytes: int | None = None
    """Estimate of the results' size: that of the inputs, scaled as in earlier runs into the same output."""
    free_bytes: int | None = None
    """Free space where the results would go; None where it is not known."""


def dry_run(request: RunRequest) -> DryRun:
    """Plan a run and return what it would do; raise `SetupError` where the run itself could not start."""
    destination = open_destination(request.src, request.dst, request.archive)
    inventory = open_source(request.src, request.dst, request.archive)
    sink = destination.sink(keep_times=request.archive.keep_times)
    earlier = destination.earlier_runs()
    plan = planned(request, destination, inventory, earlier, sink, writing=False)
    if not request.archive.sidecars:
        plan.leave_out_sidecars()
    limit = request.archive.max_bytes
    failures = [
        {"path": printable(planned.item.key), "error": planned.failure or "is larger than --max-bytes"}
        for planned in plan.todo
        if planned.failure or (planned.item.num_bytes or 0) > limit
    ]
    return DryRun(
        to_convert=len(plan.todo) - len(failures),
        input_bytes=plan.num_bytes,
        skipped=plan.num_skipped,
        failures=failures,
        renamed={printable(planned.item.key): planned.output for planned in plan.renamed},
        left_out=dict(sorted(plan.left_out.items())),
        expected_bytes=round(plan.num_bytes * _growth(plan, earlier)) if plan.num_bytes else None,
        free_bytes=None if is_url(request.dst) else _free_bytes(Path(request.dst)),
    )


def _growth(plan: ArchivePlan, earlier: EarlierRuns) -> float:
    """Return how many bytes a result had for each byte of its input, over the inputs that are done; 1 without any."""
    inputs = {item.key: item.num_bytes for item in plan.inputs_by_output.values()}
    done = [(inputs[key], earlier.entries[key].num_bytes) for key in plan.done]
    before = sum(size or 0 for size, _ in done)
    return sum(size or 0 for _, size in done) / before if before else 1.0


def _free_bytes(dst: Path) -> int:
    dst = dst.absolute()
    return shutil.disk_usage(next(folder for folder in (dst, *dst.parents) if folder.is_dir())).free
