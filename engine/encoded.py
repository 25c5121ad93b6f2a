"""Translate images in memory as files are: encoded bytes in, encoded bytes out.

The bytes are those that `solstice convert` would write: same decoders, same checks, colours, metadata and encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.config import PipelineConfig
from engine.pipeline import Pipeline, Translate
from engine.records import Encoded, Failed
from engine.testing import MemorySink, MemorySource


@dataclass(frozen=True, kw_only=True)
class TranslatedFile:
    """What became of one image."""

    data: bytes = field(default=b"", repr=False)
    """The translated image as a file; empty if it failed."""
    error: str = ""
    """Why it failed, in one line; empty if it did not."""
    notes: tuple[str, ...] = ()
    """Remarks on a translated image."""


def translate_files(
    files: Sequence[bytes], translate: Translate, config: PipelineConfig | None = None
) -> list[TranslatedFile]:
    """Translate encoded images of any sizes and formats; return their results in the same order.

    `translate` runs the generator, such as an `engine.images.Translator`. An image that cannot be translated fails
    alone. Raises `StopRun` when the device is lost.
    """
    config = config or PipelineConfig()
    sink = MemorySink()
    source = MemorySource(((str(i), data) for i, data in enumerate(files)), config.options)
    Pipeline(source, sink, {config.options.model: translate}, config).run()
    failed = {outcome.key: outcome.reason for outcome in source.outcomes if isinstance(outcome, Failed)}
    return [_result(sink.results.get(str(i)), failed.get(str(i), "")) for i in range(len(files))]


def _result(encoded: Encoded | None, error: str) -> TranslatedFile:
    if encoded is None or error:
        return TranslatedFile(error=error or "was not translated")
    return TranslatedFile(data=encoded.data, notes=encoded.notes)
