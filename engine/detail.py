"""Bring a translation back to the photo's own size, by the way that was asked for."""

from __future__ import annotations

from dataclasses import replace

from engine.guided import guided_upsample, plain_upsample
from engine.records import Failed, Picture, Record


def restore(records: list[Record[Picture] | Failed]) -> list[Record[Picture] | Failed]:
    """Enlarge each picture that carries its photo at full size; leave the others as they are.

    `guided` takes colours from the translation and detail from the photo, `plain` interpolates the translation.
    """
    return [
        record if isinstance(record, Failed) else record.replace(_restored(record.payload, record.options.detail))
        for record in records
    ]


def _restored(picture: Picture, way: str) -> Picture:
    full_HWC, before_HWC = picture.full_HWC, picture.before_HWC
    if full_HWC is None or before_HWC is None:
        return picture
    if way == "guided":
        pixels_HWC = guided_upsample(full_HWC, before_HWC, picture.pixels_HWC)
    else:
        pixels_HWC = plain_upsample(picture.pixels_HWC, *full_HWC.shape[:2])
    return replace(picture, pixels_HWC=pixels_HWC, full_HWC=None, before_HWC=full_HWC)
