"""A sink and a manifest in an object store; runs over stores are in test_convert.py and tests/engine/system."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.archive.manifest import FOLDER, ManifestEntry
from engine.archive.remote import RemoteSink, remote_manifest
from engine.options import Options
from engine.records import Encoded, Origin, Record
from engine.system.storage import Storage, connect

RESULT = Encoded(data=b"data", format="JPEG", width=1, height=1)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return connect(f"memory://{tmp_path.name}/out")


def test_a_sink_lists_the_store_only_where_results_are_looked_up(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each actor of a cluster has a sink, and a listing of ten million results is ten thousand requests."""
    listings: list[str] = []
    find = Storage.find

    def counted(self: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
        listings.append(self.url)
        return find(self)

    monkeypatch.setattr(Storage, "find", counted)
    storage.write("before.jpg", b"four")
    sink = RemoteSink(storage)
    record = Record(key="a", payload=RESULT, options=Options(), origin=Origin(output="a.jpg"))
    sink.store(record)
    assert listings == []
    found = [sink.find(name) for name in ("before.jpg", "a.jpg", "other.jpg")]
    assert [item and item.num_bytes for item in found] == [4, 4, None]
    sink.store(record.replace(RESULT))
    assert len(listings) == 1


def test_the_manifest_in_the_store_is_whole(storage: Storage, tmp_path: Path) -> None:
    with remote_manifest(storage) as manifest:
        manifest.start_run("{}", "recipe")
        manifest.record(ManifestEntry(key="a.jpg", identity="1", recipe="recipe", output="a.jpg", num_bytes=4))
    (tmp_path / "copy.sqlite").write_bytes(storage.read(f"{FOLDER}/manifest.sqlite"))
    connection = sqlite3.connect(tmp_path / "copy.sqlite")
    assert connection.execute("SELECT key, state FROM image").fetchall() == [("a.jpg", "done")]
    connection.close()
    with remote_manifest(storage) as manifest:
        earlier = manifest.earlier_runs()
        assert (list(earlier.entries), len(earlier.entries), earlier.num_done) == (["a.jpg"], 1, 1)
        assert earlier.entries["a.jpg"].output == "a.jpg"
        assert "b.jpg" not in earlier.entries
