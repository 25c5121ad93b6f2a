"""Limits on the frames and parts that a file's header may announce."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codec.bounds import MAX_FRAMES, MAX_PARTS, MAX_SCANS, count_frames, require_bounded
from engine.codec.damage import Damaged
from engine.codec.header import inspect
from engine.codec.png import check as check_png
from engine.codec.tiff import check as check_tiff
from engine.codec.tiff import first_directory
from engine.errors import SkipImage
from tests.images import encoded, photo, picture

LIMIT = 10_000_000


def gif(frames: int, comments: int = 0) -> bytes:
    """Return a GIF of 1x1 frames with `comments` comment sub-blocks in front of the first."""
    comment = b"\x21\xfe" + b"\x01x" * comments + b"\0" if comments else b""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    header = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
    return header + bytes(6) + comment + frame * frames + b";"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_frames_of_a_gif_are_counted_as_by_pillow(frames: int) -> None:
    pictures = [picture(seed=i) for i in range(frames)]
    data = encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    assert count_frames(data, "GIF") == inspect(data, LIMIT).frames == frames


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}])
def test_pages_of_a_tiff_are_counted(options: dict[str, bool]) -> None:
    pictures = [picture(seed=i) for i in range(3)]
    data = encoded(pictures[0], "TIFF", save_all=True, append_images=pictures[1:], **options)
    assert count_frames(data, "TIFF") == inspect(data, LIMIT).frames == 3


def test_a_loop_of_tiff_directories_is_counted_once() -> None:
    directory = struct.pack("<HI", 0, 8)
    assert count_frames(b"II*\0" + struct.pack("<I", 8) + directory, "TIFF") == 1


def test_counting_frames_stops_at_the_limit() -> None:
    data = gif(20 * MAX_FRAMES)
    assert inspect(data, LIMIT).frames == MAX_FRAMES


def test_frames_of_other_formats_are_not_counted() -> None:
    assert count_frames(photo(format="WEBP"), "WEBP") is None


def test_millions_of_parts_before_the_pixels_are_refused() -> None:
    jpeg, png = photo(), photo(format="PNG")
    many = 2 * MAX_PARTS
    hostile = {
        "segments": jpeg[:2] + b"\xff\xe5\0\2" * many + jpeg[2:],
        "fill bytes": jpeg[:2] + b"\xff" * many + jpeg[2:],
        "chunks": png[:33] + chunk(b"teSt", b"") * many + png[33:],
        "comments": gif(1, comments=many),
    }
    for name, data in hostile.items():
        with pytest.raises(SkipImage, match="parts precede its pixels"):
            inspect(data, LIMIT)
        assert name


def test_ordinary_images_are_within_the_limits() -> None:
    profile = bytes(3_000_000)
    for data in (
        photo(),
        photo(format="PNG"),
        gif(2, comments=1000),
        encoded(picture(), "JPEG", comment=b"x" * 60_000),
        encoded(picture(), "PNG", icc_profile=profile),
    ):
        require_bounded(data)


@given(
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+"]), st.binary(max_size=300)
)
def test_damaged_files_are_walked_without_errors(head: bytes, tail: bytes) -> None:
    data = head + tail
    require_bounded(data)
    for format in ("GIF", "TIFF"):
        assert (count_frames(data, format) or 0) >= 1


# Work that width and height do not announce.


def icon(image: bytes) -> bytes:
    """Return an icon file that announces 16x16 pixels and holds `image`."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(image), 22) + image


def tiff(tags: dict[int, tuple[int, int]], strip: bytes, *, tiles: bool = False) -> bytes:
    """Return a gray TIFF of 64x64 with `tags` (type and value) besides, and one strip or tile."""
    offset, length = (324, 325) if tiles else (273, 279)
    rows = {256: (4, 64), 257: (4, 64), 258: (3, 8), 262: (3, 1), 277: (3, 1), **tags, length: (4, len(strip))}
    at = 8 + 2 + 12 * (len(rows) + 1) + 4
    rows[offset] = (4, at)
    entries = [struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(rows.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(entries) + bytes(4) + strip


def jpeg2000(tile: int) -> bytes:
    """Return the head of a JPEG 2000 of 256x256 in tiles of `tile` pixels a side, as a codestream."""
    size = struct.pack(">H8IH", 0, 256, 256, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + b"\xff\x90" + bytes(100)


def with_scans(data: bytes, scans: int) -> bytes:
    """Return a JPEG whose last scan comes `scans` times more."""
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * scans + data[-2:]


def test_an_icon_of_any_size_is_not_decoded_to_open_it() -> None:
    large = encoded(picture(1200, 1100), "PNG")
    with pytest.raises(SkipImage, match="an image of 1200x1100 in an icon file"):
        inspect(icon(large), LIMIT)
    bitmap = encoded(picture(1200, 550), "DIB")  # its height counts the mask as well
    with pytest.raises(SkipImage, match="an image of 1200x275 in an icon file"):
        inspect(icon(bitmap), LIMIT)
    assert inspect(encoded(picture(256, 256), "ICO"), LIMIT).width == 256


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    progressive = photo(progressive=True)
    assert inspect(with_scans(progressive, 20), LIMIT).progressive
    with pytest.raises(SkipImage, match="more than 100 scans"):
        inspect(with_scans(progressive, MAX_SCANS), LIMIT)
    assert inspect(with_scans(photo(), MAX_SCANS), LIMIT).format == "JPEG", "nothing reads what follows its only scan"


def test_a_jpeg_2000_of_very_many_tiles_is_refused() -> None:
    with pytest.raises(SkipImage, match="65,536 tiles in a JPEG 2000"):
        inspect(jpeg2000(1), LIMIT)
    assert inspect(jpeg2000(8), LIMIT).width == 256
    whole = encoded(picture(64, 64), "JPEG2000")
    at = whole.index(b"jp2c")
    with pytest.raises(SkipImage, match="65,536 tiles"):
        inspect(whole[: at - 4] + bytes(4) + b"jp2c" + jpeg2000(1), LIMIT)


def test_a_tiff_whose_tiles_dwarf_its_image_is_refused() -> None:
    with pytest.raises(SkipImage, match="tiles of 40000x40000 in a TIFF of 4,096 pixels"):
        inspect(tiff({259: (3, 5), 322: (4, 40_000), 323: (4, 40_000)}, bytes(1000), tiles=True), LIMIT)
    padded = tiff({259: (3, 1), 322: (4, 512), 323: (4, 512)}, bytes(512 * 512), tiles=True)
    assert inspect(padded, LIMIT).width == 64


def test_a_tiff_of_thousands_of_channels_is_refused() -> None:
    with pytest.raises(SkipImage, match="60,000 channels in a TIFF"):
        inspect(tiff({277: (3, 60_000), 278: (4, 64)}, bytes(1000)), LIMIT)


@pytest.mark.parametrize("compression", [8, 32946])
def test_a_strip_that_expands_without_bound_is_damaged(compression: int) -> None:
    data = tiff({259: (3, compression), 278: (4, 64)}, zlib.compress(bytes(20_000_000)))
    with pytest.raises(Damaged, match="more pixels than its header announces"):
        check_tiff(data)
    check_tiff(tiff({259: (3, compression), 278: (4, 64)}, zlib.compress(bytes(64 * 64))))


def test_a_tiff_with_a_jpeg_strip_that_dwarfs_it_is_refused() -> None:
    def gray(side: int) -> bytes:
        return tiff({259: (3, 7), 278: (4, 64)}, encoded(picture(side, side).convert("L")))

    with pytest.raises(SkipImage, match="a JPEG strip of 4000x4000 in a smaller TIFF"):
        inspect(gray(4000), LIMIT)
    assert inspect(gray(64), LIMIT).width == 64
    many = with_scans(encoded(picture(64, 64).convert("L"), progressive=True), MAX_SCANS)
    with pytest.raises(SkipImage, match="more than 100 scans"):
        inspect(tiff({259: (3, 7), 278: (4, 64)}, many), LIMIT)


def test_png_pixels_with_a_wrong_checksum_are_not_expanded_without_bound() -> None:
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    for pixels, match in ((bytes(20_000_000), "more pixels"), (bytes(64 * 193), None)):
        body = chunk(b"IDAT", zlib.compress(pixels))
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body[:-1] + b"?" + chunk(b"IEND", b"")
        if match is None:
            assert "undamaged" in check_png(data)[0]
        else:
            with pytest.raises(Damaged, match=match):
                check_png(data)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_texts_and_profiles_of_a_png_are_not_decompressed_without_bound(kind: bytes) -> None:
    whole = photo(format="PNG")
    one = chunk(kind, b"name\0\0" + zlib.compress(bytes(1_000_000)))
    with pytest.raises(SkipImage, match="texts and profiles of more than"):
        inspect(whole[:33] + one * 100 + whole[33:], LIMIT)
    assert inspect(whole[:33] + one + whole[33:], LIMIT).format == "PNG"


def test_tags_of_a_tiff_that_overlap_are_not_read_again_and_again() -> None:
    data = tiff({259: (3, 1), 278: (4, 64), **dict.fromkeys(range(1000, 1100), (4, 0))}, bytes(100_000))
    at = data.index(struct.pack("<HHI", 1000, 4, 1))
    shared = bytearray(data)
    for entry in range(100):
        struct.pack_into("<HHII", shared, at + 12 * entry, 1000 + entry, 7, 90_000, 8)
    with pytest.raises(SkipImage, match="tags of a TIFF that overlap"):
        inspect(bytes(shared), LIMIT)
    assert sum(len(value.data) for value in first_directory(bytes(shared)).values()) < 5 * len(shared)
    assert inspect(data, LIMIT).format == "TIFF"
