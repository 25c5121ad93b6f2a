"""Correct metadata so that it is true of the translated, upright image."""

from __future__ import annotations

import re
from dataclasses import replace

from engine.codec.metadata import exif as exif_block
from engine.codec.metadata.exif import ExifError
from engine.records import NOTHING, Metadata

UNTRUE = {
    "motion photo": (
        b"http://ns.google.com/photos/1.0/camera/",
        b"http://ns.google.com/photos/1.0/container/",
        b"http://ns.google.com/photos/1.0/container/item/",
    ),
    "gain map": (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"http://ns.apple.com/HDRGainMap/1.0/"),
    "depth map": (
        b"http://ns.google.com/photos/1.0/depthmap/",
        b"http://ns.google.com/photos/1.0/image/",
        b"http://ns.google.com/photos/1.0/audio/",
        b"http://ns.google.com/photos/1.0/focus/",
        b"http://ns.google.com/photos/dd/1.0/device/",
    ),
}
"""Namespaces whose properties hold offsets and lengths of data behind the image, or describe images beside it."""
PANORAMA = b"http://ns.google.com/photos/1.0/panorama/"
PANORAMA_ACROSS = (b"CroppedAreaImageWidthPixels", b"FullPanoWidthPixels", b"CroppedAreaLeftPixels")
PANORAMA_DOWN = (b"CroppedAreaImageHeightPixels", b"FullPanoHeightPixels", b"CroppedAreaTopPixels")

EXTENDED_XMP = re.compile(rb"""\sxmpNote:HasExtendedXMP\s*=\s*(["']).*?\1""", re.DOTALL)


def for_output(metadata: Metadata, width: int, height: int, *, srgb: bool = True) -> Metadata:
    """Return what is true of the upright output of `width` x `height` pixels.

    Orientation is 1 in EXIF and XMP, pixel dimensions are the new ones, thumbnails of the old photo are removed, and
    with `srgb` both name sRGB. Data of motion photos, gain maps and depth maps are removed from XMP, panorama sizes are
    scaled. Camera, date, GPS, MakerNote, authors and rights stay as they were. An EXIF block that cannot be read is
    dropped. Notes name what was dropped. The profile stays: `engine.codec.colour` decides on it.
    """
    if metadata == NOTHING:
        return metadata
    notes = list(metadata.notes)
    exif = metadata.exif
    if exif is not None:
        try:
            exif, lost = exif_block.corrected(exif, width, height, srgb=srgb)
            notes += lost
        except ExifError as error:
            exif = None
            notes.append(f"EXIF dropped: {error}")
    xmp = metadata.xmp
    if xmp is not None:
        if b"HasExtendedXMP" in xmp:
            notes.append("extended XMP dropped: only the main packet is carried over")
        xmp = corrected_xmp(xmp, width, height, srgb=srgb)
        xmp, lost = without_untrue(xmp)
        xmp, scaled = scaled_panorama(xmp, metadata, width, height)
        notes += lost + scaled
    return replace(metadata, orientation=1, exif=exif, xmp=xmp, notes=tuple(notes))


def without_untrue(xmp: bytes) -> tuple[bytes, list[str]]:
    """Return a packet without properties that describe data which do not come along, and a note for each kind."""
    notes = []
    for what, namespaces in UNTRUE.items():
        before = xmp
        for prefix in [prefix for names in namespaces for prefix in prefixes(xmp, names)]:
            xmp = without_properties(xmp, prefix)
        if xmp != before:
            notes.append(f"{what} dropped from XMP: the result has no such data")
    return xmp, notes


def scaled_panorama(xmp: bytes, metadata: Metadata, width: int, height: int) -> tuple[bytes, list[str]]:
    """Scale the pixel counts of a panorama (GPano) where the output has another size; drop them where it was turned."""
    before = xmp
    for prefix in prefixes(xmp, PANORAMA):
        if metadata.size is None or metadata.orientation != 1:
            xmp = without_properties(xmp, prefix)
            continue
        across, down = width / metadata.size[0], height / metadata.size[1]
        if (across, down) != (1.0, 1.0):
            for name, scale in [(n, across) for n in PANORAMA_ACROSS] + [(n, down) for n in PANORAMA_DOWN]:
                xmp = scaled_property(xmp, prefix + b":" + name, scale)
    if xmp == before:
        return xmp, []
    dropped = metadata.size is None or metadata.orientation != 1
    return xmp, ["panorama (GPano) dropped from XMP: the photo was turned"] if dropped else [
        "panorama sizes (GPano) in XMP scaled to the size of the result"
    ]


def corrected_xmp(xmp: bytes, width: int, height: int, *, srgb: bool) -> bytes:
    """Correct orientation, pixel dimensions and colour space where a packet holds them; drop its thumbnails.

    Programs keep their own data in the packet: only these values change, the rest stays byte for byte.
    """
    across, down = b"%d" % width, b"%d" % height
    properties = [
        (b"http://ns.adobe.com/tiff/1.0/", b"Orientation", b"1"),
        (b"http://ns.adobe.com/tiff/1.0/", b"ImageWidth", across),
        (b"http://ns.adobe.com/tiff/1.0/", b"ImageLength", down),
        (b"http://ns.adobe.com/exif/1.0/", b"PixelXDimension", across),
        (b"http://ns.adobe.com/exif/1.0/", b"PixelYDimension", down),
    ]
    if srgb:
        properties += [
            (b"http://ns.adobe.com/exif/1.0/", b"ColorSpace", b"1"),
            (b"http://ns.adobe.com/photoshop/1.0/", b"ICCProfile", b"sRGB IEC61966-2.1"),
        ]
    for names, name, value in properties:
        for prefix in prefixes(xmp, names):
            xmp = set_property(xmp, prefix + b":" + name, value)
    for thumbnails in (b"xmp:Thumbnails", b"xap:Thumbnails"):
        start, end = xmp.find(b"<" + thumbnails), xmp.rfind(b"</" + thumbnails + b">")
        if 0 <= start < end:
            xmp = xmp[:start] + xmp[end + len(thumbnails) + 3 :]
    return EXTENDED_XMP.sub(b"", xmp)


def set_property(xmp: bytes, name: bytes, value: bytes) -> bytes:
    """Set a simple property, written as an attribute or as an element, where it is there."""
    written = rb"\g<1>%s\g<2>" % value
    xmp = re.sub(rb"""(\s%s\s?=\s?["'])[^"'<]*(["'])""" % re.escape(name), written, xmp)
    return re.sub(rb"(<%s>)[^<]*(</)" % re.escape(name), written, xmp)


def prefixes(xmp: bytes, namespace: bytes) -> list[bytes]:
    """Return the prefixes that a packet binds to a namespace."""
    return list(
        dict.fromkeys(re.findall(rb"""xmlns:([\w.-]+)\s?=\s?["']""" + re.escape(namespace) + rb"""["']""", xmp))
    )


def scaled_property(xmp: bytes, name: bytes, scale: float) -> bytes:
    """Multiply a whole number, written as an attribute or as an element, where it is there."""
    for pattern in (rb"""(\s%s\s?=\s?["'])(\d+)""", rb"""(<%s>\s*)(\d+)"""):
        xmp = re.sub(pattern % re.escape(name), lambda found: found[1] + b"%d" % round(int(found[2]) * scale), xmp)
    return xmp


def without_properties(xmp: bytes, prefix: bytes) -> bytes:
    """Remove all properties of a prefix, written as attributes or as elements, with what is inside them."""
    name = rb"%s:[\w.-]+" % re.escape(prefix)
    xmp = re.sub(rb"<(%s)(?:\s[^<>]*)?>.*?</\1\s*>" % name, b"", xmp, flags=re.DOTALL)
    xmp = re.sub(rb"<%s(?:\s[^<>]*)?/>" % name, b"", xmp)
    return re.sub(rb"""\s%s\s?=\s?(?:"[^"<]*"|'[^'<]*')""" % name, b"", xmp)
