"""Correct metadata so that it is true of the translated, upright image."""

from __future__ import annotations

import re
from dataclasses import replace

from engine.codec.metadata import exif as exif_block
from engine.codec.metadata.exif import ExifError
from engine.records import NOTHING, Metadata

EXTENDED_XMP = re.compile(rb"""\sxmpNote:HasExtendedXMP\s*=\s*(["']).*?\1""", re.DOTALL)


def for_output(metadata: Metadata, width: int, height: int, *, srgb: bool = True) -> Metadata:
    """Return what is true of the upright output of `width` x `height` pixels.

    Orientation is 1 in EXIF and XMP, pixel dimensions are the new ones, thumbnails of the old picture are
    gone, and with `srgb` both say sRGB. Camera, date, GPS, MakerNote, authors and rights stay as they were.
    An EXIF block that cannot be read is dropped with a note. The profile stays: `colour` decides on it.
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
    return replace(metadata, orientation=1, exif=exif, xmp=xmp, notes=tuple(notes))


def corrected_xmp(xmp: bytes, width: int, height: int, *, srgb: bool) -> bytes:
    """Correct orientation, pixel dimensions and colour space where a packet gives them; drop its thumbnails.

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
        bound = re.search(rb"""xmlns:([\w.-]+)\s?=\s?["']""" + re.escape(names), xmp)
        if bound is not None:
            xmp = set_property(xmp, bound[1] + b":" + name, value)
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
