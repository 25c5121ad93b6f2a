"""The commands submit, results and replay on a real broker."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

from click.testing import CliRunner, Result

from engine.cli.main import solstice as solstice_command
from tests.stream.stream import Stream, eventually, photo


def solstice(stream: Stream, *words: str) -> Result:
    """Run a command in this process and return its result."""
    environment = {
        "SOLSTICE_KAFKA_BROKERS": stream.brokers,
        "SOLSTICE_JOBS": stream.jobs,
        "SOLSTICE_RESULTS": stream.results_topic,
        "SOLSTICE_DEAD_LETTERS": stream.dead_topic,
        "SOLSTICE_CACHE": str(stream.folder / "cache"),
    }
    return CliRunner().invoke(solstice_command, words, env=environment)


def test_submit_a_folder_then_replay_its_failures_after_a_fix(stream: Stream) -> None:
    # Given a folder with good photos and a damaged one
    for i in range(5):
        stream.add_photo(f"album/{i}.jpg", photo(i))
    stream.add_photo("broken.jpg", photo()[:150])
    stream.worker()
    # When it is submitted twice
    assert "6 jobs sent, 0 sent before" in solstice(stream, "submit", str(stream.inputs)).stdout
    assert "0 jobs sent, 6 sent before" in solstice(stream, "submit", str(stream.inputs)).stdout
    # Then `results` prints each outcome and exits with 1 because of the failure
    command = solstice(stream, "results", "--expect", "6", "--timeout", "30", "--json")
    lines = [json.loads(line) for line in command.stdout.splitlines()]
    assert command.exit_code == 1
    assert "5 done, 1 failed." in command.stderr
    assert sum(line["status"] == "done" for line in lines) == 5
    assert set(stream.files()) == {f"album/{i}.jpg" for i in range(5)}
    # And once the photo is repaired, `replay` sends its job back, once
    stream.add_photo("broken.jpg", photo(9))
    assert "1 jobs would be sent back" in solstice(stream, "replay", "--dry-run", "--idle", "3").stdout
    assert "1 jobs sent back" in solstice(stream, "replay", "--idle", "3").stdout
    assert "0 jobs sent back" in solstice(stream, "replay", "--idle", "3").stdout
    eventually(lambda: "broken.jpg" in stream.files())
    assert solstice(stream, "results", "--expect", "6", "--timeout", "30").exit_code == 0


def test_submit_prints_what_it_leaves_out_and_what_it_cannot_send(stream: Stream) -> None:
    for name in ("a.jpg", "film.mov", "clip.mov", "a.xmp", ".hidden.jpg", "@eaDir/a.jpg"):
        stream.add_photo(name, photo() if name.endswith("jpg") else b"-")
    (stream.inputs / "link.jpg").symlink_to("nowhere")
    bad_name = b"caf\xe9.jpg"
    (Path(os.fsencode(stream.inputs).decode()) / os.fsdecode(bad_name)).write_bytes(photo())
    lines = solstice(stream, "submit", str(stream.inputs)).stdout.splitlines()
    assert lines[0] == "1 jobs sent, 0 sent before, 2 images refused; left out: 2 .mov, 1 .xmp, 1 @eaDir/, 1 hidden."
    assert lines[1] == "  caf\\xe9.jpg: its name is not UTF-8"
    assert lines[2] == "  link.jpg: cannot be read: No such file or directory"


def test_submit_of_a_folder_without_photos_fails_and_lists_what_was_left_out(stream: Stream) -> None:
    stream.add_photo("film.mov", b"-")
    command = solstice(stream, "submit", str(stream.inputs))
    assert "There is no photo to translate" in str(command.exception)
    assert "left out: 1 .mov" in str(command.exception)


def test_submit_of_a_zip_sends_the_photos_inside_the_jobs(stream: Stream, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.jpg", photo(i))
    stream.worker(input_roots=())
    assert "3 jobs sent" in solstice(stream, "submit", str(tmp_path / "photos.zip")).stdout
    assert {result["status"] for result in stream.results(3)} == {"done"}
    assert set(stream.files()) == {"0.jpg", "1.jpg", "2.jpg"}
