"""How `convert` chooses, names and stores the files of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engine.errors import SetupError

if TYPE_CHECKING:  # listing loads the readers of archives and stores, which `--help` must not
    from engine.listing.selection import Selection

Pages = Literal["first", "all"]


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Everything about files that does not change a single pixel."""

    include: tuple[str, ...] = ()
    """Globs of what is taken; empty takes every image. See `engine.listing.selection`."""
    exclude: tuple[str, ...] = ()
    """Globs of what is left out."""
    pages: Pages = "first"
    """Pages of a TIFF and frames of an animation: the first alone, or each as a result of its own."""
    max_bytes: int = 2 << 30
    """A file or member larger than this is refused before it is read."""
    suffix: str = ""
    """Text added to the name of every result, before its suffix: `_winter` makes `a_winter.jpg`."""
    name: str = "{stem}.{suffix}{ext}"
    """Name of a result whose own name belongs to another input: `{stem}` and `{suffix}` of the input, `{ext}` of the
    result with its dot."""
    overwrite: bool = False
    """Translate again what is done, and replace files that were there before."""
    keep_times: bool = False
    """Set the times of last change of results to those of their inputs."""
    sidecars: bool = False
    """Copy `.xmp` and `.json` files that belong to a photo."""
    shard_bytes: int | None = None
    """Size at which an output tar is continued in the next shard; None writes one tar."""

    def __post_init__(self) -> None:
        if "/" in self.suffix or "/" in self.name:
            raise SetupError("A result's name cannot contain a slash; it stays in the folder of its photo.")
        try:
            self.name.format(stem="a", suffix="b", ext=".c")
        except (KeyError, IndexError, ValueError):
            raise SetupError(
                f"--name {self.name!r} is not a template; use {{stem}}, {{suffix}} and {{ext}}, "
                "such as '{stem}-{suffix}{ext}'."
            ) from None
        if not self.name.format(stem="a", suffix="b", ext=".c").endswith(".c"):
            raise SetupError(f"--name {self.name!r} must end with {{ext}}, the suffix of the result's format.")

    @property
    def selection(self) -> Selection:
        """Which files and folders are taken by name."""
        from engine.listing.selection import Selection

        return Selection(include=self.include, exclude=self.exclude)
