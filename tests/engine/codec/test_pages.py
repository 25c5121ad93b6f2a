"""Extract pages of TIFFs and frames of animations, each as a file of its own."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from engine.codec.pages import num_pages, single_page
from engine.errors import SkipImage
from tests.images import encoded, photo, picture, pixels

PAGES = [picture(seed=i) for i in range(3)]
KINDS = {
    "TIFF": {},
    "big TIFF": {"big_tiff": True},
    "GIF": {},
    "WEBP": {"lossless": True},
    "PNG": {},
}


def several(kind: str) -> bytes:
    return encoded(PAGES[0], kind.split()[-1], save_all=True, append_images=PAGES[1:], **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_extracted(kind: str) -> None:
    whole = several(kind)
    assert num_pages(whole) == 3
    for number, page in enumerate(PAGES):
        single = single_page(whole, number)
        assert num_pages(single) == 1
        error = np.abs(pixels(single) - np.asarray(page).astype(np.int16)).mean()
        assert error < (12 if kind == "GIF" else 1), "a GIF has 256 colours"
    with pytest.raises(SkipImage, match=r"has no (page|frame) 4"):
        single_page(whole, 3)


def test_a_page_of_a_tiff_keeps_its_metadata_and_depth() -> None:
    pages = [Image.fromarray(np.full((8, 8), 1000 * i + 7, np.uint16)) for i in range(2)]
    whole = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], description="a scan", dpi=(300, 300))
    with Image.open(io.BytesIO(single_page(whole, 1))) as image:
        assert np.asarray(image).max() == 1007
        assert image.info["dpi"] == (300, 300)


@pytest.mark.parametrize("data", [b"", b"words", b"II*\0", b"II*\0\xff\xff\xff\xff", photo(), photo(format="PNG")])
def test_anything_else_has_one_page(data: bytes) -> None:
    assert num_pages(data) == 1


def test_a_loop_of_pages_ends() -> None:
    data = bytearray(encoded(PAGES[0], "TIFF"))
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * entries : first + 6 + 12 * entries] = data[4:8]
    assert num_pages(bytes(data)) == 1
