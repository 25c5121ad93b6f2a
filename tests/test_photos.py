"""Photos through all of `convert`: orientation, colours, transparency and metadata."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from engine import Options, PipelineConfig, Size, Summary, convert
from engine.archive.config import ArchiveConfig
from engine.archive.manifest import Manifest
from engine.codec.colour import adobe_rgb_icc, from_pixels, open_profile, to_profile
from engine.config import EncodeConfig
from engine.model.weights import Generator
from tests.images import described, encoded, photo, picture, turned

SUFFIX_OUT = {".jxl": ".jpg", ".mpo": ".jpg", ".j2k": ".jpg", ".jp2": ".jpg", ".gif": ".png"}


def run(
    src: Path, dst: Path, generator: Generator, *, format: str = "keep", size: str = "native", **options: Any
) -> Summary:
    """Convert with an identity generator, so that everything else can be compared."""
    report, archive = options.pop("report", None), ArchiveConfig(keep_times=options.pop("keep_times", False))
    config = PipelineConfig(
        options=Options(size=Size.parse(size), format=format),
        encode=EncodeConfig(quality=100, subsampling="4:4:4", **options),
    )
    return convert(src, dst, generator, config, translate=lambda _: lambda x: x, report=report, archive=archive)


def one(tmp_path: Path, generator: Generator, name: str, data: bytes, **options: Any) -> Path:
    """Convert one file and return the path of its result."""
    source = tmp_path / "in" / name
    source.parent.mkdir()
    source.write_bytes(data)
    assert run(source.parent, tmp_path / "out", generator, **options).failures == []
    (result,) = (path for path in (tmp_path / "out").iterdir() if path.is_file())
    return result


def notes(dst: Path) -> dict[str, tuple[str, ...]]:
    """Return the remarks that the last run stored in the manifest, by photo."""
    with Manifest(dst) as manifest:
        manifest.run = 1
        return dict(manifest.remarks())


def tags(*arguments: str | Path) -> dict[str, Any]:
    """Return the tags that exiftool finds in a file."""
    done = subprocess.run(["exiftool", "-j", "-n", "-G1", *map(str, arguments)], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 7, 9])
def test_photos_of_every_format_are_turned_upright(
    tmp_path: Path, generator: Generator, format: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    original = picture()
    options: dict[str, Any] = {"JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 95}}.get(format, {})
    result = one(tmp_path, generator, f"a.{format.lower()}", encoded(original, format, exif=exif, **options))
    expected = turned(np.asarray(original), orientation if 1 <= orientation <= 8 else 1)
    with Image.open(result) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        found = np.asarray(image.convert("RGB"))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_a_wide_gamut_photo_becomes_srgb_with_an_srgb_profile(tmp_path: Path, generator: Generator) -> None:
    data = encoded(picture(), "PNG", icc_profile=adobe_rgb_icc())
    with Image.open(one(tmp_path, generator, "a.png", data)) as image:
        np.testing.assert_array_equal(np.asarray(image), from_pixels(np.asarray(picture()), adobe_rgb_icc()).pixels)
        profile = open_profile(image.info["icc_profile"])
        assert "sRGB" in (profile.profile.profile_description or "")


def test_keep_profile_converts_back_to_the_colours_of_the_photo(tmp_path: Path, generator: Generator) -> None:
    muted = Image.blend(picture(), Image.new("RGB", picture().size, (128, 128, 128)), 0.75)
    data = encoded(muted, "PNG", icc_profile=adobe_rgb_icc())
    with Image.open(one(tmp_path, generator, "a.png", data, keep_profile=True)) as image:
        assert image.info["icc_profile"] == adobe_rgb_icc()
        assert np.abs(np.asarray(image).astype(int) - np.asarray(muted)).max() <= 2


def test_adobe_rgb_declared_in_exif_alone_is_converted(tmp_path: Path, generator: Generator) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    data = encoded(picture(), "PNG", exif=exif)
    assert described(data).adobe_rgb
    with Image.open(one(tmp_path, generator, "a.png", data)) as image:
        np.testing.assert_array_equal(np.asarray(image), from_pixels(np.asarray(picture()), adobe_rgb_icc()).pixels)
        assert image.getexif().get_ifd(0x8769)[0xA001] == 1


def test_a_photo_with_a_broken_profile_is_converted_with_a_remark(tmp_path: Path, generator: Generator) -> None:
    result = one(tmp_path, generator, "a.png", encoded(picture(), "PNG", icc_profile=b"broken"))
    with Image.open(result) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture()))
    assert "profile is broken" in notes(tmp_path / "out")["a.png"][0]


def test_cmyk_becomes_rgb_at_every_size(tmp_path: Path, generator: Generator) -> None:
    """The photo has black ink only, because no CMYK profile may be distributed: without one, K is darkness."""
    ink = Image.merge("CMYK", [*[Image.new("L", (40, 30))] * 3, Image.linear_gradient("L").resize((40, 30))])
    with Image.open(one(tmp_path, generator, "a.jpg", encoded(ink, quality=100), size="16")) as image:
        assert image.mode == "RGB"
        pixels = np.asarray(image).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 2
    assert (np.diff(pixels[:, 0, 0]) < 0).all()


@pytest.mark.parametrize(("format", "mode"), [("png", "RGBA"), ("webp", "RGBA"), ("tiff", "RGBA"), ("jpeg", "RGB")])
def test_transparency_is_kept_or_composited_on_white(
    tmp_path: Path, generator: Generator, format: str, mode: str
) -> None:
    alpha = Image.linear_gradient("L").resize((61, 43))
    image = picture()
    image.putalpha(alpha)
    result = one(tmp_path, generator, "a.png", encoded(image, "PNG"), format=format, lossless=format == "webp")
    with Image.open(result) as found:
        assert found.mode == mode
        if mode == "RGBA":
            np.testing.assert_array_equal(np.asarray(found.getchannel("A")), np.asarray(alpha))
        else:
            assert np.abs(np.asarray(found)[0].astype(int) - 255).max() <= 8
    said = notes(tmp_path / "out")
    assert said == ({"a.png": ("transparency laid on white: JPEG has none",)} if mode == "RGB" else {})


def test_transparency_is_resized_and_turned_with_the_photo(tmp_path: Path, generator: Generator) -> None:
    image = Image.new("RGBA", (64, 32), (200, 30, 30, 255))
    image.paste((200, 30, 30, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left half becomes the top
    with Image.open(one(tmp_path, generator, "a.png", encoded(image, "PNG", exif=exif), size="16")) as found:
        assert found.size == (16, 32)
        alpha = np.asarray(found.getchannel("A"))
    assert (alpha[:12] == 0).all()
    assert (alpha[20:] == 255).all()


def test_guided_detail_keeps_colours_transparency_and_size(tmp_path: Path, generator: Generator) -> None:
    image = picture(120, 90)
    image.putalpha(Image.linear_gradient("L").resize((120, 90)))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(image, "PNG", icc_profile=adobe_rgb_icc()))
    config = PipelineConfig(options=Options(size=Size.parse("32"), detail="guided"))
    summary = convert(tmp_path / "in", tmp_path / "out", generator, config, translate=lambda _: lambda x: x)
    assert summary.failures == []
    with Image.open(tmp_path / "out" / "a.png") as found:
        np.testing.assert_array_equal(np.asarray(found.getchannel("A")), np.asarray(image.getchannel("A")))
        expected = from_pixels(np.asarray(image.convert("RGB")), adobe_rgb_icc()).pixels
        assert np.abs(np.asarray(found.convert("RGB")).astype(int) - expected).mean() < 6


def test_heic_becomes_an_upright_jpeg(tmp_path: Path, generator: Generator) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    file = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(file, exif=exif.tobytes(), quality=95)
    with Image.open(one(tmp_path, generator, "a.heic", file.getvalue())) as image:
        assert (image.format, image.size) == ("JPEG", (43, 61))
        assert (image.getexif()[0x0112], image.getexif()[0x010F]) == (1, "Maker")
        assert np.abs(np.asarray(image).astype(int) - turned(np.asarray(picture()), 6)).mean() < 6


def test_16_bits_are_rounded_to_8(tmp_path: Path, generator: Generator) -> None:
    values = np.linspace(0, 65535, 32 * 16 * 3).astype(">u2").reshape(16, 32, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 32, 16, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    with Image.open(one(tmp_path, generator, "a.png", data)) as image:
        assert np.abs(np.asarray(image) - values / 257).max() <= 1


def test_strip_removes_all_metadata_but_the_profile(tmp_path: Path, generator: Generator) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = encoded(picture(), exif=exif, comment=b"mine", icc_profile=adobe_rgb_icc())
    result = described(one(tmp_path, generator, "a.jpg", data, strip=True).read_bytes())
    assert (result.exif, result.comment, result.xmp) == (None, None, None)
    assert result.icc is not None


def test_an_animation_becomes_its_first_frame_with_a_remark(tmp_path: Path, generator: Generator) -> None:
    data = encoded(picture(seed=1), "GIF", save_all=True, append_images=[picture(seed=2), picture(seed=3)])
    result = one(tmp_path, generator, "a.gif", data)
    assert result.name == "a.png"
    with Image.open(io.BytesIO(data)) as first, Image.open(result) as found:
        np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(first.convert("RGB")))
    assert notes(tmp_path / "out") == {"a.gif": ("first of 3 frames",)}


def test_times_of_files_and_archive_members_are_kept(tmp_path: Path, generator: Generator) -> None:
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "a.jpg"
    source.write_bytes(photo())
    os.utime(source, ns=(0, 1_000_000_000_123_456_789))
    run(tmp_path / "in", tmp_path / "out", generator, keep_times=True)
    assert (tmp_path / "out" / "a.jpg").stat().st_mtime_ns == 1_000_000_000_123_456_789
    subprocess.run(["tar", "-C", tmp_path / "in", "-cf", tmp_path / "in.tar", "a.jpg"], check=True)
    run(tmp_path / "in.tar", tmp_path / "tar out", generator, keep_times=True)
    assert (tmp_path / "tar out" / "a.jpg").stat().st_mtime == 1_000_000_000
    run(tmp_path / "in", tmp_path / "now", generator)
    assert (tmp_path / "now" / "a.jpg").stat().st_mtime > 1_700_000_000


def test_progressive_and_lossless_encoding(tmp_path: Path, generator: Generator) -> None:
    with Image.open(one(tmp_path, generator, "a.jpg", photo(), progressive=True)) as image:
        assert image.info["progressive"]
    (tmp_path / "more").mkdir()
    png = photo(format="PNG")
    with Image.open(one(tmp_path / "more", generator, "a.png", png, format="webp", lossless=True)) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (3, 2)])
def test_photos_of_extreme_shapes_are_converted(tmp_path: Path, generator: Generator, shape: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", shape, (200, 30, 30)), "PNG", icc_profile=adobe_rgb_icc())
    with Image.open(one(tmp_path, generator, "a.png", data)) as image:
        assert image.size == shape


@pytest.mark.needs_exiftool
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_tags_written_by_exiftool_are_kept(tmp_path: Path, generator: Generator, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / f"a.{suffix}"
    source.write_bytes(photo(format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())))
    written = {
        "IFD0:Make": "Kamera", "IFD0:Orientation": 6, "ExifIFD:DateTimeOriginal": "2019:08:14 09:30:00",
        "GPS:GPSLatitude": 37.7456, "XMP-dc:Title": "Half Dome",
    }  # fmt: skip
    arguments = [f"-{tag}={value}" for tag, value in written.items()]
    subprocess.run(["exiftool", "-q", "-n", "-overwrite_original", *arguments, source], check=True)
    run(tmp_path / "in", tmp_path / "out", generator)
    found = tags("-warning", "-all", tmp_path / "out" / source.name)
    assert {tag: found[tag] for tag in written} == {
        **written,
        "IFD0:Orientation": 1,
        "GPS:GPSLatitude": pytest.approx(37.7456),
    }
    assert "ExifTool:Warning" not in found


# The photo collection.


@pytest.mark.needs_photos
def test_the_18_orientation_photos_become_upright(tmp_path: Path, generator: Generator, photos: Path) -> None:
    run(photos / "orientation", tmp_path, generator)
    for kind in ("landscape", "portrait"):
        upright_pixels = None
        for number in range(9):
            path = tmp_path / f"{kind}_{number}.jpg"
            assert described(path.read_bytes()).orientation == 1
            with Image.open(path) as image:
                assert image.getexif()[0x0112] == 1
                small = np.asarray(image.resize((90, 60) if kind == "landscape" else (60, 90), Image.Resampling.BOX))
            if upright_pixels is None:
                upright_pixels = small.astype(int)
            # Each photo shows its own number and was compressed on its own.
            assert np.abs(small - upright_pixels).mean() < 12, path.name


@pytest.mark.needs_photos
def test_every_photo_of_the_collection_is_converted_or_refused(
    tmp_path: Path, generator: Generator, photos: Path
) -> None:
    summary = run(photos, tmp_path, generator, size="64")
    failed = {failure["path"]: failure for failure in summary.failures}
    with (photos / "INDEX.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if not row["file"].endswith(".fuzzed")]
    assert summary.images == len(rows)
    for row in rows:
        name = row["file"]
        if row["Pillow 13 says"] == "ok" or name.endswith(".jxl"):  # which Pillow reads with a plugin
            assert name not in failed, failed.get(name)
            path = (tmp_path / name).with_suffix(SUFFIX_OUT.get(Path(name).suffix, Path(name).suffix))
            with Image.open(path) as image:
                image.load()
        else:
            assert name in failed, f"{name} should be refused"
            assert failed[name]["stage"] == (
                "inspect" if row["Pillow 13 says"] in ("huge", "UnidentifiedImageError") else failed[name]["stage"]
            )
            if row["Pillow 13 says"] == "huge":
                assert "--max-pixels" in failed[name]["error"]


@pytest.mark.needs_photos
@pytest.mark.needs_exiftool
def test_camera_metadata_is_kept(tmp_path: Path, generator: Generator, photos: Path) -> None:
    """Compare all tags that exiftool finds, MakerNotes included, except those that must change."""
    changed = {"ExifImageWidth", "ExifImageHeight", "ImageWidth", "ImageHeight", "ImageSize"}
    groups = ("IFD0", "ExifIFD", "GPS", "Canon", "Nikon", "Panasonic", "XMP-", "IPTC", "InteropIFD")
    stored = {"BitsPerSample", "PhotometricInterpretation", "SamplesPerPixel", "Compression"}
    run(photos / "large", tmp_path, generator, size="64")
    for source in sorted((photos / "large").iterdir()):
        before, after = tags(source), tags(tmp_path / source.name)
        for tag, value in before.items():
            group, _, name = tag.partition(":")
            if group.startswith(groups) and name not in changed | stored:
                assert after.get(tag) == value, f"{source.name}: {tag}"
        assert after.get("ExifIFD:ExifImageWidth", after["File:ImageWidth"]) == after["File:ImageWidth"]
        assert not any(tag.endswith(":ThumbnailImage") for tag in after)


@pytest.mark.needs_photos
def test_colours_agree_with_littlecms_at_full_size(tmp_path: Path, generator: Generator, photos: Path) -> None:
    """Compare each photo with the result of `ImageCms.profileToProfile`."""
    run(photos / "formats", tmp_path, generator, format="png")
    checked = 0
    for source in sorted((photos / "formats").iterdir()):
        with Image.open(source) as image:
            icc, orientation = image.info.get("icc_profile"), described(source.read_bytes()).orientation
            if icc is None or image.mode not in ("RGB", "L", "CMYK"):
                continue
            flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
            converted = ImageCms.profileToProfile(
                image,
                io.BytesIO(icc),
                ImageCms.createProfile("sRGB"),
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "RGB",
                flags=flags,
            )
            assert converted is not None
            expected = turned(np.asarray(converted), orientation)
        with Image.open((tmp_path / source.name).with_suffix(".png")) as found:
            difference = np.abs(np.asarray(found).astype(int) - expected)
        assert difference.mean() < 1.5, source.name
        checked += 1
    assert checked >= 8


def test_keep_profile_equals_one_conversion_back_from_srgb(tmp_path: Path, generator: Generator) -> None:
    """Colours outside sRGB are clipped on decoding and not a second time on encoding."""
    data = encoded(picture(), "PNG", icc_profile=adobe_rgb_icc())
    with Image.open(one(tmp_path, generator, "a.png", data, keep_profile=True)) as image:
        clipped = from_pixels(np.asarray(picture()), adobe_rgb_icc()).pixels
        np.testing.assert_array_equal(np.asarray(image), to_profile(clipped, adobe_rgb_icc()).pixels)
