"""Plan an archive of made-up names: processor time and memory of each step, without a photo.

    python -m benchmarks.listing 1000000

The first run finds nothing done, the second everything. The names are those of an object store, listed by fsspec from a
file system that makes them up.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from engine.archive.config import ArchiveConfig
from engine.archive.manifest import Manifest, ManifestEntry
from engine.archive.plan import make_plan
from engine.listing import list_objects
from engine.options import Options
from engine.ports import ArchiveOutput, Found
from engine.system.storage import Storage

SIZE = 3_000_000


class MadeUpStore:
    """As much of an fsspec file system as a listing uses: a thousand objects in each folder."""

    def __init__(self, number: int) -> None:
        self._number = number

    def invalidate_cache(self) -> None:
        """Do nothing."""

    def find(self, root: str, detail: bool) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        """Return information about every object, as s3fs does."""
        return {name: _info(name) for name in (_name(root, i) for i in range(self._number))}


def _name(root: str, i: int) -> str:
    return f"{root}/2019/{i // 1000:06}/IMG_{i:09}.jpg"


def _info(name: str) -> dict[str, Any]:
    return {
        "Key": name,
        "LastModified": "2019-07-01T12:00:00Z",
        "ETag": f'"{hash(name):032x}"',
        "Size": SIZE,
        "StorageClass": "STANDARD",
        "type": "file",
        "size": SIZE,
        "name": name,
    }


class MadeUpOutput:
    """Finds every result, or none."""

    def __init__(self, *, done: bool) -> None:
        self._found = Found(num_bytes=1000) if done else None

    def find(self, output: str) -> Found | None:  # noqa: ARG002
        """Return what is at `output`."""
        return self._found


@contextmanager
def measured(step: str, rows: list[dict[str, Any]]) -> Iterator[None]:
    """Measure processor time, and the memory of this process at the end and at its highest so far."""
    started_s = time.process_time()
    yield
    rows.append(
        {
            "step": step,
            "cpu_s": round(time.process_time() - started_s, 2),
            "resident_mb": _resident_bytes() // 10**6,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6,
        }
    )
    print(json.dumps(rows[-1]), flush=True)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Plan a first run, record that all is done, and plan a second one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=1_000_000)
    number: int = parser.parse_args().number
    rows: list[dict[str, Any]] = []
    with measured("start", rows):
        pass
    with tempfile.TemporaryDirectory() as folder:
        for run, done in (("first", False), ("second", True)):
            with Manifest(Path(folder)) as manifest:
                manifest.start_run("{}", "recipe")
                output = cast("ArchiveOutput", MadeUpOutput(done=done))  # planning uses nothing else of it
                with measured(f"{run} run: list", rows):
                    inventory = list_objects(Storage("s3://bucket/photos", MadeUpStore(number), "bucket/photos"))
                with measured(f"{run} run: read the manifest", rows):
                    earlier = manifest.earlier_runs()
                with measured(f"{run} run: plan", rows):
                    plan = make_plan(inventory, earlier, output, Options(), "recipe", ArchiveConfig())
                print(run, "run:", len(plan.todo), "to do,", len(plan.done), "done", file=sys.stderr)
                with measured(f"{run} run: record", rows):
                    for planned in plan.todo:
                        manifest.record(
                            ManifestEntry(
                                key=planned.item.key,
                                identity=planned.item.identity,
                                recipe="recipe",
                                output=planned.output,
                                num_bytes=1000,
                            )
                        )
                del inventory, earlier, plan
        print("manifest:", sum(path.stat().st_size for path in Path(folder).rglob("*")) // 10**6, "MB")


if __name__ == "__main__":
    main()
