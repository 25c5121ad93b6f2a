"""Colours that a file describes without an ICC profile, which are not converted: gAMA, cHRM and cICP of a PNG, nclx."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from engine.codec import boxes, png

_GAMMA, _SRGB_GAMMA = 45_455, 0.02
_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""White, red, green and blue of sRGB, as in a PNG's cHRM."""
_SAME_PRIMARIES = {1, 2}
"""BT.709, which sRGB shares, and unspecified (ITU-T H.273, table 2)."""
_SAME_TRANSFER = {1, 2, 6, 13, 14, 15}
"""Unspecified, sRGB, and BT.709 with its equals, which screens show like sRGB (table 3)."""
_NAMES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {4: "gamma 2.2", 5: "gamma 2.8", 8: "linear", 16: "PQ", 18: "HLG"}


def unused_colours(image: Image.Image, data: bytes) -> Iterator[str]:
    """Yield a remark where an image without a profile describes colours that are not those of sRGB."""
    if image.info.get("icc_profile"):
        return
    named = ""
    if image.format == "PNG":
        named = _of_png(image, data)
    elif image.format in ("AVIF", "HEIF"):
        named = _of_code_points(*boxes.code_points(data))
    if named:
        yield f"the photo is taken as sRGB, without {named}"


def _of_png(image: Image.Image, data: bytes) -> str:
    """Return what a PNG describes, the chunk that counts most first; empty for sRGB (PNG 3rd edition, 4.3)."""
    cicp = next((data[start + 8 : end - 4] for kind, start, end in png.chunks(data) if kind == b"cICP"), b"")
    if len(cicp) == 4:
        return _of_code_points(cicp[0], cicp[1])
    if "srgb" in image.info:
        return ""
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity")
    names = []
    if gamma and abs(gamma * 100_000 / _GAMMA - 1) > _SRGB_GAMMA:
        names.append(f"its gamma ({gamma:g})")
    if primaries and any(abs(own - srgb) > 0.005 for own, srgb in zip(primaries, _PRIMARIES, strict=False)):
        names.append("its primaries (cHRM)")
    return " and ".join(names)


def _of_code_points(primaries: int, transfer: int) -> str:
    """Return the name of code points of ITU-T H.273; empty for those of sRGB."""
    names = []
    if primaries not in _SAME_PRIMARIES:
        names.append(_NAMES.get(primaries, f"primaries {primaries}"))
    if transfer not in _SAME_TRANSFER:
        names.append(_TRANSFERS.get(transfer, f"transfer {transfer}"))
    return f"its colour space ({', '.join(names)})" if names else ""
