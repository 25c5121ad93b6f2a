"""Names of results: from the name of the photo and the requested format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codec.formats import FORMATS, IMAGE_SUFFIXES, is_image_name, output_name

CHARACTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
STEMS = st.text(CHARACTERS, min_size=1).filter(lambda s: s.strip("."))


@pytest.mark.parametrize(
    ("key", "asked", "name", "format"),
    [
        ("a/b.JPG", "keep", "a/b.JPG", "jpeg"),
        ("b.jpeg", "keep", "b.jpeg", "jpeg"),
        ("b.tif", "keep", "b.tif", "tiff"),
        ("b.gif", "keep", "b.png", "png"),
        ("b.bmp", "keep", "b.png", "png"),
        ("b.heic", "keep", "b.jpg", "jpeg"),
        ("b.jp2", "keep", "b.jpg", "jpeg"),
        ("b.jpx", "keep", "b.jpg", "jpeg"),
        ("b.avif", "keep", "b.avif", "avif"),
        ("b.jpg", "png", "b.png", "png"),
        ("b.jpe", "jpeg", "b.jpe", "jpeg"),
        ("b.c.webp", "jpeg", "b.c.jpg", "jpeg"),
        ("b.dat", "keep", "b.dat.png", "png"),
        ("b", "tiff", "b.tif", "tiff"),
        (".jpg", "keep", ".jpg.png", "png"),
    ],
)
def test_keep_replaces_formats_that_cannot_be_written(key: str, asked: str, name: str, format: str) -> None:
    assert output_name(key, asked) == (name, format)


@given(stem=STEMS, suffix=st.sampled_from(sorted(IMAGE_SUFFIXES)), asked=st.sampled_from(["keep", *FORMATS]))
def test_a_result_keeps_its_folder_and_has_the_suffix_of_its_format(stem: str, suffix: str, asked: str) -> None:
    key = f"folder/{stem}{suffix}"
    name, format = output_name(key, asked)
    assert name.startswith(f"folder/{stem}.")
    assert format in FORMATS
    assert asked in ("keep", format)
    assert output_name(name, "keep") == (name, format), "the name of a result must be a valid name of a photo"


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "x/y.TIF", "a.b.png", "a.HEIC"])
def test_photos_are_recognised_by_suffix(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["jpg", "a.jpg.txt", "a.mp4", "a", ".jpg", "a.jpg/b"])
def test_other_files_are_not_photos(name: str) -> None:
    assert not is_image_name(name)
