"""The checksums in files that PyTorch wrote, which `torch.load` does not look at: a flipped bit is another weight."""

from __future__ import annotations

import zipfile
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def damaged_record(path: Path) -> str | None:
    """Return the name of the first record whose checksum is wrong in a file of `torch.save`; None for an intact one.

    Files of before PyTorch 1.6 have no checksums; nor have records that were written with
    `torch.serialization.set_crc32_options(False)`, which name 0.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return next((info.filename for info in archive.infolist() if info.CRC and not _fits(archive, info)), None)
    except (zipfile.BadZipFile, NotImplementedError, EOFError):
        return "list of records"


def _fits(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as record:
            while record.read(_CHUNK_BYTES):
                pass
    except zipfile.BadZipFile:
        return False
    return True
