"""Jobs read files only below the input roots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import SkipImage
from engine.stream.inputs import Inputs, LocalInput, SourceUnavailable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with a photo in a sub-folder, and a secret file beside the folder."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a b.jpg").write_bytes(b"photo")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "in"


def test_a_source_may_be_a_relative_path_an_absolute_path_or_a_uri(root: Path) -> None:
    inputs = Inputs([str(root)], 100)
    path = root / "sub/a b.jpg"
    for name in ("sub/a b.jpg", str(path), path.as_uri(), path.as_uri().replace("file://", "file://localhost")):
        assert inputs.read(name) == b"photo", name


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("../secret", "not under any"),
        ("sub/../../secret", "not under any"),
        ("way/secret", "not under any"),
        ("link", "not under any"),
        ("file:///etc/passwd", "not under any"),
        ("s3://bucket/key", "not under any"),
        ("file://elsewhere/etc/passwd", "not a valid file URI"),
        ("missing", "does not exist"),
        ("sub", "not a regular file"),
        ("pipe", "not a regular file"),
        ("large", "over the limit of 100"),
        ("nul\0", "not a valid path"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_a_source_outside_the_root_or_not_a_file_is_refused(root: Path, source: str, said: str) -> None:
    (root / "way").symlink_to(root.parent)
    (root / "link").symlink_to(root.parent / "secret")
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(bytes(101))
    with pytest.raises(SkipImage, match=said):
        Inputs([str(root)], 100).read(source)


def test_a_root_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    inputs = Inputs([str(tmp_path / "current")], 100)
    assert inputs.read("sub/a b.jpg") == inputs.read(str(tmp_path / "current/sub/a b.jpg")) == b"photo"


def test_the_second_root_is_read_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    inputs = Inputs([str(tmp_path / "first"), str(root)], 100)
    assert inputs.read(str(root / "sub/a b.jpg")) == b"photo"


def test_without_roots_a_job_must_contain_its_image() -> None:
    with pytest.raises(SkipImage, match="no --input-root"):
        Inputs([], 100).read("a.jpg")


def test_a_missing_file_fails_and_a_missing_folder_makes_jobs_wait(root: Path) -> None:
    inputs = Inputs([str(root)], 100)
    with pytest.raises(SkipImage, match="does not exist"):
        inputs.read("missing.jpg")
    root.rename(root.parent / "unplugged")
    for name in ("missing.jpg", "sub/a b.jpg"):
        with pytest.raises(SourceUnavailable, match="is gone"):
            inputs.read(name)
    (root.parent / "unplugged").rename(root)
    assert inputs.read("sub/a b.jpg") == b"photo"


@pytest.mark.parametrize("before", ["away", "a file"])
def test_a_folder_that_comes_back_while_it_is_looked_for_has_its_images(
    root: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening fails without the folder, then the folder answers: that says nothing about the image."""
    inputs, away, real = Inputs([str(root)], 1000), root.with_name("away"), LocalInput.answers
    root.rename(away)
    if before == "a file":  # what an unmounted disk leaves behind
        root.write_bytes(b"")

    def comes_back(local: LocalInput) -> bool:
        if away.exists():
            root.unlink(missing_ok=True)
            away.rename(root)
        return real(local)

    monkeypatch.setattr(LocalInput, "answers", comes_back)
    assert inputs.read("sub/a b.jpg") == b"photo"


def test_a_root_whose_file_system_is_unmounted_is_unavailable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mount point still exists and is empty."""
    is_mount = Path.is_mount
    mounted = {root}
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounted or is_mount(path))
    inputs = Inputs([str(root)], 100)
    (root / "sub/a b.jpg").unlink()
    with pytest.raises(SkipImage, match="does not exist"):
        inputs.read("sub/a b.jpg")
    mounted.clear()
    with pytest.raises(SourceUnavailable, match="is gone"):
        inputs.read("sub/a b.jpg")


def test_the_unavailable_root_is_named_by_its_number(root: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    inputs = Inputs([str(tmp_path / "first"), str(root)], 100)
    path = root / "sub/a b.jpg"
    assert inputs.read_from(str(path)) == (b"photo", 1)
    root.rename(tmp_path / "unplugged")
    with pytest.raises(SourceUnavailable) as caught:
        inputs.read(str(path))
    assert caught.value.root == 1
