from __future__ import annotations

from pathlib import Path

from engine.stream.submit import Journal


def test_what_was_added_is_known_again(tmp_path: Path) -> None:
    with Journal(tmp_path / "folder" / "journal") as journal:
        journal.add(["a", "b"])
    with Journal(tmp_path / "folder" / "journal") as journal:
        assert "a" in journal
        assert "c" not in journal
        assert len(journal) == 2


def test_half_an_entry_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.add(["a"])
    path.write_bytes(path.read_bytes() + b"half")
    with Journal(path) as journal:
        journal.add(["b"])
    with Journal(path) as journal:
        assert len(journal) == 2
        assert "b" in journal
