"""Which folders and files of an archive are taken, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

STATE_FOLDER = ".solstice"
"""Folder that makes the folder around it an output of Solstice."""

OUTPUT_KIND = "Solstice results/"
"""Kind under which output folders inside an archive are counted."""

SERVICE_FOLDERS = frozenset(
    {
        "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
        "__macosx", "system volume information", "lost+found", "found.000",
    }
)  # fmt: skip
"""Folders that file servers, recycle bins and archivers make, in lower case."""


@dataclass(frozen=True)
class Selection:
    """Globs over paths relative to the archive.

    `*` and `?` stay inside one part of a path, `**` crosses folders, and letter case does not matter. A glob without
    `/` is compared with every part of the path, one with `/` with the whole path from its start; a folder that matches
    stands for everything in it. `exclude` wins over `include`; an empty `include` takes everything.

    Hidden files and `SERVICE_FOLDERS` are left out unless a part of an `include` glob names them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _include: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _exclude: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _named: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_include", tuple(map(_pattern, self.include)))
        object.__setattr__(self, "_exclude", tuple(map(_pattern, self.exclude)))
        parts = [part for glob in self.include for part in glob.split("/") if part and part[0] in ".@#$_"]
        object.__setattr__(self, "_named", tuple(re.compile(_translate(part), re.IGNORECASE) for part in parts))

    def kind_left_out(self, key: str, *, folder: bool = False) -> str | None:
        """Return the kind under which the file or folder at `key` is left out by its own name; None when it is taken.

        The folders above it must have been asked about before; `whole_path_kind` asks about all of them.
        """
        name = key.rsplit("/", 1)[-1]
        unusual = name.startswith(".") or (folder and name.lower() in SERVICE_FOLDERS)
        if unusual and (name == STATE_FOLDER or not _any_match(self._named, name)):
            return "hidden" if name.startswith(".") else f"{name}/"
        if _any_match(self._exclude, key) or (not folder and self._include and not _any_match(self._include, key)):
            return "excluded"
        return None

    def whole_path_kind(self, key: str) -> tuple[str, str] | None:
        """Return (kind, path of the file or folder that is left out) for a member of an archive; None when taken."""
        parts = key.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if kind := self.kind_left_out(folder, folder=True):
                return kind, folder
        kind = self.kind_left_out(key)
        return None if kind is None else (kind, key)


def _any_match(patterns: Iterable[re.Pattern[str]], key: str) -> bool:
    return any(pattern.fullmatch(key) for pattern in patterns)


def _pattern(glob: str) -> re.Pattern[str]:
    """Compile a glob over whole paths, which matches everything below a folder as well."""
    glob = glob.removeprefix("./")
    anchored = "/" in glob.rstrip("/")
    body = _translate(glob.strip("/"))
    return re.compile(f"(?:{'' if anchored else '(?:.*/)?'}{body})(?:/.*)?", re.IGNORECASE | re.DOTALL)


def _translate(glob: str) -> str:
    """Return the regular expression of one glob."""
    out, i = "", 0
    while i < len(glob):
        if glob.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif glob.startswith("**", i):
            out, i = out + ".*", i + 2
        elif glob[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif glob[i] == "?":
            out, i = out + "[^/]", i + 1
        elif glob[i] == "[" and (end := glob.find("]", i + 2)) > 0:
            inside = glob[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, i = out + f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", end + 1
        else:
            out, i = out + re.escape(glob[i]), i + 1
    return out
