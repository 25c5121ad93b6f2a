"""Correct metadata so that it describes the translated, upright image."""

from __future__ import annotations

import pytest
from PIL import Image

from engine.codec.metadata.correct import corrected_xmp, for_output
from engine.records import Metadata
from tests.images import described, photo

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    b' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' t:Orientation="6" exif:PixelXDimension="4000" exif:ColorSpace="65535" photoshop:ICCProfile="Adobe RGB (1998)"'
    b' xmp:Rating="5"><exif:PixelYDimension>3000</exif:PixelYDimension><t:ImageWidth>4000</t:ImageWidth>'
    b"<xmp:Thumbnails><rdf:Alt><rdf:li>the old picture</rdf:li></rdf:Alt></xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker"
    block.get_ifd(0x8769)[0xA002] = 4000
    return block.tobytes()


def test_orientation_and_size_describe_the_result() -> None:
    found = for_output(described(photo(exif=exif(6), xmp=XMP)), 640, 853)
    assert found.orientation == 1
    assert found.exif is not None
    block = Image.Exif()
    block.load(found.exif)
    assert block[0x0112] == 1
    assert block[0x010F] == "Maker"
    assert block.get_ifd(0x8769)[0xA002] == 640
    assert found.xmp == corrected_xmp(XMP, 640, 853, srgb=True)


def test_an_unreadable_exif_block_is_dropped_with_a_note() -> None:
    found = for_output(Metadata(exif=b"absurd", xmp=XMP), 640, 853)
    assert found.exif is None
    assert found.xmp is not None
    assert "EXIF dropped" in found.notes[0]


def test_xmp_is_corrected_in_every_notation() -> None:
    after = corrected_xmp(XMP, 640, 853, srgb=True)
    assert b't:Orientation="1"' in after
    assert b'exif:PixelXDimension="640"' in after
    assert b"<exif:PixelYDimension>853</exif:PixelYDimension>" in after
    assert b"<t:ImageWidth>640</t:ImageWidth>" in after
    assert b'exif:ColorSpace="1"' in after
    assert b'photoshop:ICCProfile="sRGB IEC61966-2.1"' in after
    assert b"old picture" not in after
    assert b'xmp:Rating="5"' in after


def test_xmp_keeps_the_colour_space_where_the_profile_is_kept() -> None:
    after = corrected_xmp(XMP, 640, 853, srgb=False)
    assert b'exif:ColorSpace="65535"' in after
    assert b"Adobe RGB (1998)" in after


def test_extended_xmp_is_dropped_with_a_note() -> None:
    xmp = b'<rdf:Description xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="AB12" a="b"/>'
    found = for_output(Metadata(xmp=xmp), 1, 1)
    assert found.xmp == xmp.replace(b' xmpNote:HasExtendedXMP="AB12"', b"")
    assert "extended XMP" in found.notes[0]


RDF = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:{prefix}="{names}" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"'
    "{attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("names", "attributes", "elements", "what"),
    [
        ("http://ns.google.com/photos/1.0/camera/", ' p:MotionPhoto="1" p:MicroVideoOffset="4321"', "", "motion photo"),
        (
            "http://ns.google.com/photos/1.0/container/",
            "",
            "<p:Directory><rdf:Seq><rdf:li>9</rdf:li></rdf:Seq></p:Directory>",
            "motion photo",
        ),
        ("http://ns.adobe.com/hdr-gain-map/1.0/", ' p:Version="1.0"', "<p:GainMapMax>3.2</p:GainMapMax>", "gain map"),
        ("http://ns.google.com/photos/1.0/depthmap/", ' p:Near="0.3"', "<p:Far/>", "depth map"),
    ],
)
def test_properties_that_refer_to_dropped_data_are_dropped(
    names: str, attributes: str, elements: str, what: str
) -> None:
    xmp = RDF.format(prefix="p", names=names, attributes=attributes, elements=elements).encode()
    found = for_output(Metadata(xmp=xmp, size=(4000, 3000)), 640, 480)
    assert found.xmp == RDF.format(prefix="p", names=names, attributes="", elements="").encode()
    assert found.notes == (f"{what} dropped from XMP: the result has no such data",)


PANO = RDF.format(
    prefix="GPano",
    names="http://ns.google.com/photos/1.0/panorama/",
    attributes=' GPano:FullPanoWidthPixels="8000" GPano:CroppedAreaTopPixels="100" GPano:PoseHeadingDegrees="12"',
    elements="<GPano:CroppedAreaImageWidthPixels>4000</GPano:CroppedAreaImageWidthPixels>",
).encode()


def test_panorama_sizes_are_scaled() -> None:
    found = for_output(Metadata(xmp=PANO, size=(4000, 3000)), 400, 600)
    assert found.xmp == (PANO.replace(b'"8000"', b'"800"').replace(b'"100"', b'"20"').replace(b">4000<", b">400<"))
    assert found.notes == ("panorama sizes (GPano) in XMP scaled to the size of the result",)
    same = for_output(Metadata(xmp=PANO, size=(4000, 3000)), 4000, 3000)
    assert (same.xmp, same.notes) == (PANO, ())


def test_panorama_properties_of_a_turned_photo_are_dropped() -> None:
    found = for_output(Metadata(xmp=PANO, size=(4000, 3000), orientation=6), 3000, 4000)
    assert found.xmp is not None
    assert b"GPano:" not in found.xmp
    assert found.notes == ("panorama (GPano) dropped from XMP: the photo was turned",)
