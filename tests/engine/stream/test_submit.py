from __future__ import annotations

from pathlib import Path

from engine.stream.submit import Journal


def test_added_entries_are_found_by_a_later_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "folder" / "journal") as journal:
        journal.add(["a", "b"])
    with Journal(tmp_path / "folder" / "journal") as journal:
        assert "a" in journal
        assert "c" not in journal
        assert len(journal) == 2


def test_a_partly_written_entry_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add(["a"])
    path.write_bytes(path.read_bytes() + b"half")
    with Journal(path) as journal:
        journal.add(["b"])
    with Journal(path) as journal:
        assert len(journal) == 2
        assert "b" in journal
