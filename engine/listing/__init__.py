"""What there is to translate in a folder, a file, a list of paths, a tar, a zip or an object store.

Listing an archive reads names and headers, and the first bytes of files whose suffix is not that of an image; nothing
is decoded here.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from engine.codec.formats import is_image_name
from engine.errors import SetupError
from engine.listing.folder import input_of_file, list_folder, list_paths
from engine.listing.inputs import Input, Inventory, printable
from engine.listing.objects import list_objects
from engine.listing.selection import Selection
from engine.listing.tar import is_tar, list_tar, opener_of
from engine.listing.zip import list_zip

__all__ = ["LIST_SUFFIXES", "Input", "Inventory", "Selection", "list_inputs", "list_objects", "printable"]

LIST_SUFFIXES = (".txt", ".lst", ".list")
"""Suffixes of text files that name one photo a line."""

_ARCHIVE_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")


def list_inputs(src: Path, skip: Path | None = None, selection: Selection | None = None) -> Inventory:
    """List the images of `src`: a folder, an image, a list of paths (.txt), a tar (also compressed) or a zip.

    `skip` is a folder that is passed over, such as the output folder. Raises `SetupError` when `src` is missing or
    cannot be read as what it seems to be.
    """
    selection = selection or Selection()
    try:
        if src.is_dir():
            os.scandir(src).close()
            return list_folder(src, selection, skip)
        return _list_file(src, src.stat(), selection)
    except FileNotFoundError:
        raise SetupError(f'"{src}" does not exist.') from None
    except OSError as error:
        raise SetupError(f'"{src}" cannot be read: {error.strerror or error}.') from error


def _list_file(src: Path, info: os.stat_result, selection: Selection) -> Inventory:
    if not stat.S_ISREG(info.st_mode):
        raise SetupError(f'"{src}" is neither a folder nor a file.')
    if is_image_name(src.name):  # before the others, because a photo may have a zip behind its end
        return Inventory([input_of_file(str(src), src.name, info)])
    if is_tar(src):
        return list_tar(src, selection)
    if zipfile.is_zipfile(src):
        return list_zip(src, selection)
    if src.suffix.lower() in LIST_SUFFIXES:
        return list_paths(src, selection)
    if src.suffix.lower() in _ARCHIVE_SUFFIXES or opener_of(src) is not None:
        raise SetupError(f'"{src}" is not a tar or a zip that can be read; unpack it and name the folder.')
    return Inventory([input_of_file(str(src), src.name, info)])
