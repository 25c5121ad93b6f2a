"""Sidecars: files with metadata beside a photo, copied beside its result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from engine.archive.config import ArchiveConfig
from engine.archive.plan import ArchivePlan
from engine.errors import SkipImage
from engine.listing import Input
from engine.options import Options
from engine.ports import ArchiveOutput
from engine.records import Encoded, Failed, Origin, Record


def copy_sidecars(plan: ArchivePlan, sink: ArchiveOutput, config: ArchiveConfig) -> int:
    """Copy the sidecars of all photos that have a result, and return how many were copied.

    One that belongs to no photo, cannot be read, or whose name is taken is counted in `plan.left_out`. A sidecar that
    is there already in the same size is left alone.
    """
    num_copied = 0
    for item, output in sidecar_outputs(plan, sink):
        found = None if output is None else sink.find(output)
        if output is None or (found is not None and output in plan.inputs_by_output):
            plan.left_out[f"{PurePosixPath(item.key).suffix.lower()} of no photo"] += 1
        elif found is None or config.overwrite or found.num_bytes != item.num_bytes:
            try:
                _copy(item, output, sink)
                num_copied += 1
            except (OSError, SkipImage):
                plan.left_out[f"{PurePosixPath(item.key).suffix.lower()} not copied"] += 1
    return num_copied


def sidecar_outputs(plan: ArchivePlan, sink: ArchiveOutput) -> Iterator[tuple[Input, str | None]]:
    """Yield each sidecar with the name of its copy, or None when it belongs to no photo with a result.

    `a.jpg.xmp` and `a.jpg.supplemental-metadata.json` belong to `a.jpg`; `a.xmp` belongs to the first photo that is
    called `a`.
    """
    by_key: dict[str, str] = {}
    by_stem: dict[str, str] = {}
    for output, item in plan.inputs_by_output.items():
        if sink.find(output) is not None:
            by_key[item.key] = output
            by_stem.setdefault(_without_suffix(item.key), output)
    for item in plan.sidecars:
        base, suffix = _without_suffix(item.key), PurePosixPath(item.key).suffix
        shorter = _without_suffix(base)
        if base in by_key:
            yield item, by_key[base] + suffix
        elif shorter in by_key:
            yield item, by_key[shorter] + base[len(shorter) :] + suffix
        elif base in by_stem:
            yield item, _without_suffix(by_stem[base]) + suffix
        else:
            yield item, None


def _copy(item: Input, output: str, sink: ArchiveOutput) -> None:
    encoded = Encoded(data=item.read(), format="", width=0, height=0)
    origin = Origin(output=output, modified_ns=item.modified_ns)
    record = Record(key=item.key, payload=encoded, options=Options(), origin=origin)
    (outcome,) = sink.settle([record.replace(sink.store(record))])
    if isinstance(outcome, Failed):
        raise SkipImage(outcome.reason)


def _without_suffix(key: str) -> str:
    suffix = PurePosixPath(key).suffix
    return key[: len(key) - len(suffix)] if suffix else key
