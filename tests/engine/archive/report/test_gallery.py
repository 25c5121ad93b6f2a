"""Thumbnails for the report page: their size, the choice of a sample, and where they wait."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.archive.report.gallery import LARGEST_SIDE, SMALLEST_SIDE, Comparison, Gallery, comparison, thumbnail_side


def test_a_thumbnail_is_small_and_looks_like_the_photo() -> None:
    pixels = np.full((3000, 4000, 3), (200, 30, 30), np.uint8)
    made = comparison("x.jpg", pixels, pixels[:1500, :2000], 400)
    assert (made.width, made.height) == (2000, 1500)
    with Image.open(io.BytesIO(made.before)) as image:
        assert image.size == (400, 300)
        assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() <= 3


def test_an_extreme_photo_has_a_thumbnail() -> None:
    made = comparison("x.jpg", np.zeros((60_000, 1, 3), np.uint8), np.zeros((60_000, 1, 3), np.uint8), 400)
    with Image.open(io.BytesIO(made.after)) as image:
        assert image.size == (1, 400)


def test_thumbnails_shrink_with_their_number() -> None:
    sides = [thumbnail_side(count) for count in (1, 24, 1000, 3000, 100_000)]
    assert sides == sorted(sides, reverse=True)
    assert (sides[0], sides[-1]) == (LARGEST_SIDE, SMALLEST_SIDE)
    assert 1000 * 2 * sides[2] ** 2 * 0.7 * 0.16 == pytest.approx(64e6, rel=0.02)


def test_a_sample_does_not_depend_on_the_order() -> None:
    names = [f"{folder}/{number:03d}.jpg" for folder in "abc" for number in range(40)]
    samples = []
    for seed in (1, 2):
        gallery = Gallery(keep=10)
        random.Random(seed).shuffle(names)
        for name in names:
            if gallery.wants(name):
                gallery.add(Comparison(name=name, before=name.encode(), after=b"after", width=3, height=2))
        kept = list(gallery)
        gallery.close()
        assert [photo.before.decode() for photo in kept] == [photo.name for photo in kept]
        samples.append([photo.name for photo in kept])
    assert samples[0] == samples[1] == sorted(samples[0])
    assert len(samples[0]) == 10
    assert len({name[0] for name in samples[0]}) > 1


def test_a_gallery_of_everything_keeps_everything() -> None:
    gallery = Gallery(keep=None, total=200)
    for number in range(200):
        assert gallery.wants(f"{number}.jpg")
        gallery.add(Comparison(name=f"{number}.jpg", before=b"b", after=b"a", width=3, height=2))
    assert len(gallery) == 200
    assert {photo.name for photo in gallery} == {f"{number}.jpg" for number in range(200)}
    gallery.close()


def named(name: str) -> Comparison:
    return Comparison(name=name, before=name.encode(), after=b"after", width=3, height=2)


def test_a_gallery_with_a_path_is_there_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "gallery.sqlite"
    first = Gallery(keep=None, path=path)
    for name in ("a", "b", "c"):
        first.add(named(name))
    first.close()
    second = Gallery(keep=None, path=path)
    second.restrict_to(["a", "c", "d"])
    second.add(Comparison(name="a", before=b"new", after=b"after", width=3, height=2))
    assert [(photo.name, photo.before) for photo in second] == [("a", b"new"), ("c", b"c")]
    assert second.has("c")
    assert not second.has("b")
    second.close()


def test_a_sample_of_a_kept_gallery_is_the_same_sample(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    whole = Gallery(keep=5)
    for name in names:
        whole.add(named(name))
    parts = Gallery(keep=5, path=tmp_path / "gallery.sqlite")
    for name in names[:20]:
        parts.add(named(name))
    parts.close()
    parts = Gallery(keep=5, path=tmp_path / "gallery.sqlite")
    for name in names[20:]:
        if parts.wants(name):
            parts.add(named(name))
    assert list(parts) == list(whole)
    whole.close()
    parts.close()


def test_a_file_that_is_no_gallery_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "gallery.sqlite").write_bytes(b"no database" * 100)
    gallery = Gallery(keep=None, path=tmp_path / "gallery.sqlite")
    gallery.add(named("a"))
    assert len(gallery) == 1
    gallery.close()
