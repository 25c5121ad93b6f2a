"""The memory that an image takes while it is in flight, estimated from its header."""

from __future__ import annotations

from engine.options import Options
from engine.records import Inspected

# Bytes per pixel as decoded, by Pillow's mode; modes that are not here have four.
_STORED_BYTES = {
    "1": 1,
    "L": 1,
    "P": 1,
    "LA": 2,
    "PA": 2,
    "I;16": 2,
    "I;16B": 2,
    "I;16L": 2,
    "RGB": 3,
    "YCbCr": 3,
    "LAB": 3,
}

# Measured as the peak of a process with one image, and with the allocator's setting of the commands
# (tests/engine/codec/test_footprint.py): blocks that are kept leave gaps of up to 3 bytes per pixel.
_BASELINE_JPEG_BYTES = 6  # decoded straight into its array; up to 13.7 bytes with a restored result were seen
_LEAST_STORED_BYTES = 15  # palettes and grayscale become RGB; decoded, converted and upright pixels overlap
_ALPHA_BYTES = 8  # alpha beside the colours, straight and multiplied
_WORKING_BYTES = 12  # resized pixels, a batch of them, its translation, and what is encoded
_RESTORED_BYTES = 8  # the photo at its own size beside its translation


def footprint_bytes(image: Inspected, options: Options) -> int:
    """Return the peak of memory from decoding `image` to storing its result, the generator's own memory excluded."""
    width, height = options.size.target(image.width, image.height)
    if image.format == "JPEG" and not image.progressive and image.mode in ("RGB", "L"):
        per_pixel = _BASELINE_JPEG_BYTES
    else:
        per_pixel = max(_LEAST_STORED_BYTES, 3 * _STORED_BYTES.get(image.mode, 4) + 9)
        per_pixel += _ALPHA_BYTES if image.translucent else 0
    if options.detail != "none" and (width, height) != (image.width, image.height):
        per_pixel += _RESTORED_BYTES
    return len(image.data) + per_pixel * image.num_pixels + _WORKING_BYTES * width * height
