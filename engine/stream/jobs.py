"""Jobs and results as messages: JSON, described by the files in `engine/stream/schemas/`."""

from __future__ import annotations

import binascii
import codecs
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import unquote_to_bytes

import fastjsonschema
import pybase64

from engine.codec.formats import output_name
from engine.errors import SkipImage
from engine.observe.tracing import StageTimes
from engine.options import Options, Size
from engine.records import Failed, Origin, Record

VERSION = 1
"""Of both schemas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to translate, as a message asks for it."""

    id: str
    source: str | None
    """URI or name of the image; None when the image is in `data`."""
    data: bytes | None = field(default=None, repr=False)
    """The image itself."""
    output: str | None = None
    """Name of the result relative to the output root; None to derive it from the id."""
    inline: bool = False
    """Put the translated image into the result instead of storing it."""
    options: Options

    def digest(self, data: bytes, model_sha256: str) -> str:
        """Return a hash of all that decides the result and its name; equal for a job that is delivered again."""
        asked = (self.id, self.output, model_sha256, str(self.options))
        hashed = hashlib.sha256(json.dumps(asked).encode())
        hashed.update(hashlib.sha256(data).digest())
        return hashed.hexdigest()


def parse_job(value: bytes, key: bytes | None, fallback_id: str, defaults: Callable[[str], Options]) -> Job:
    """Parse a message: JSON if it begins with a brace, otherwise an image whose id is the message's key.

    `defaults` returns the options of a job that asks for none, by its id. Raises `SkipImage` with one line about the
    first error.
    """
    if value[:64].lstrip()[:1] == b"{":
        return _job(_parsed(value), defaults)
    if not value:
        raise SkipImage("the message is empty")
    _refuse_framing(value)
    id = _text(key, "the key") if key else fallback_id
    return Job(id=id[:512], source=None, data=value, options=defaults(id[:512]))


def read_id(value: bytes | None, key: bytes | None, fallback_id: str) -> str:
    """Return an id for the result of a message that is not a valid job: its own, if it has one."""
    try:
        fields = json.loads(value or b"")
        id = fields["id"]
        if isinstance(id, str) and 0 < len(id) <= 512:
            id.encode()
            return id
    except (ValueError, RecursionError, TypeError, KeyError):
        pass
    try:
        return key.decode()[:512] if key else fallback_id
    except UnicodeDecodeError:
        return fallback_id


_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_BOXED_IMAGES = (b"ftyp", b"jP  ", b"JXL ")  # image files that begin with the length of their first part
_ICON = b"\0\0\1\0"


def _refuse_framing(value: bytes) -> None:
    """Raise `SkipImage` for JSON in an encoding or a framing that is not read, which would pass for a broken image."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if value.startswith(mark):
            raise SkipImage(f"the message begins with a byte-order mark ({encoding}); send JSON as UTF-8 without one")
    if value[:1] == b"\0" and len(value) > 5 and value[4:8] not in _BOXED_IMAGES and value[:4] != _ICON:
        schema_id = int.from_bytes(value[1:5], "big")
        if schema_id == 0:  # ids begin with 1
            return
        raise SkipImage(
            f"the message has the framing of a schema registry (schema id {schema_id}); send JSON without a serializer "
            "of a schema registry"
        )


def _parsed(value: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(value)
        validate_job(fields)
        return fields
    except fastjsonschema.JsonSchemaValueException as error:
        raise SkipImage(f"not a valid job: {error.message[:300]}") from None
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, thousands of digits, nested without end
        raise SkipImage(f"not valid JSON: {str(error)[:200]}") from None


def _job(fields: Mapping[str, Any], defaults: Callable[[str], Options]) -> Job:
    data = _inline(fields["source"]) if fields["source"].startswith("data:") else None
    for name in ("id", "output", "model", *(("source",) if data is None else ())):
        _require_text(fields.get(name, ""), name)
    options = _options(fields, defaults(fields["id"]))
    output: str | None = fields.get("output")
    if output is not None:
        output, format = output_name(output, options.format)
        options = replace(options, format=format)
    return Job(
        id=fields["id"],
        source=None if data is not None else fields["source"],
        data=data,
        output=output,
        inline=fields.get("inline", False),
        options=options,
    )


def _options(fields: Mapping[str, Any], defaults: Options) -> Options:
    asked = {name: fields[name] for name in ("model", "detail", "format", "quality") if name in fields}
    if "size" in fields:
        try:
            asked["size"] = Size.parse(str(fields["size"]))
        except ValueError as error:
            raise SkipImage(f"not a valid job: {error}") from None
    return replace(defaults, **asked) if asked else defaults


def _inline(uri: str) -> bytes:
    """Decode the image of a data URI (RFC 2397)."""
    header, comma, body = uri.partition(",")
    if not comma:
        raise SkipImage("not a valid job: source is a data URI without a comma")
    if not header.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return pybase64.b64decode(body, validate=True)  # a2b_base64 takes forty times as long
    except (binascii.Error, ValueError):
        raise SkipImage("not a valid job: source is not valid base64") from None


def data_uri(data: bytes) -> str:
    """Encode an image as a data URI (RFC 2397), the source of a job that carries its image."""
    return f"data:;base64,{pybase64.b64encode_as_string(data)}"


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise SkipImage(f"{what} is not UTF-8") from None


def _require_text(value: str, name: str) -> None:
    """Refuse lone surrogates, which JSON can represent and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SkipImage(f"not a valid job: {name} is not valid Unicode") from None


def schema(name: str) -> dict[str, Any]:
    """Return the JSON schema `job-v1` or `result-v1`."""
    text = (resources.files("engine.stream") / "schemas" / f"{name}.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate_job(fields: object) -> None:
    """Raise `fastjsonschema.JsonSchemaValueException` when `fields` is not a job."""
    _validator("job-v1")(fields)


@cache
def _validator(name: str) -> Callable[[object], object]:
    compiled: Callable[[object], object] = fastjsonschema.compile(schema(name))
    return compiled


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the jobs topic, unchanged."""

    topic: str
    partition: int
    offset: int
    timestamp_s: float
    """Seconds since 1970."""
    key: bytes | None
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = ()
    undecodable: str = ""
    """Why the client could not decode it; empty for all others."""

    @property
    def num_bytes(self) -> int:
        """Approximate memory that it takes."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + headers + 200

    @property
    def position(self) -> str:
        """Fallback id for messages without one."""
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(slots=True, kw_only=True)
class JobState(Origin):
    """One job in flight, from the fetch of its message to its acknowledgement."""

    message: Message
    epoch: int
    """Number of the partition's assignment; a job of an earlier assignment no longer moves the offset."""
    id: str
    wait_s: float
    """Seconds from the message's time stamp to its fetch."""
    fetched_s: float = 0.0
    """Time of its fetch, in seconds since 1970."""
    job: Job | None = None
    digest: str = ""
    """See `Job.digest`; empty until the image is read, and for results with the image inline."""
    model_sha256: str = ""
    attempts: int = 1
    alone: bool = False
    """No other job is in progress: it was in progress when workers crashed."""
    read_s: float = 0.0
    needs_bytes: int = 0
    """Memory that its image takes, once it is known to be large; see `engine.stream.read_memory`."""
    result: dict[str, Any] = field(default_factory=dict)
    """Fields of the result that describe the image, once it is stored."""

    @property
    def model(self) -> str:
        """Name of the model that translates it; empty until the message is parsed, and for what is no valid job."""
        return "" if self.job is None else self.job.options.model

    stages: StageTimes | None = None
    """When its stages ran, where it is traced."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of waiting and reading, for the record; where the job is traced, always the same object."""
        seconds = {"wait": self.wait_s, "read": self.read_s}
        if self.stages is None:
            return seconds
        self.stages.update(seconds)  # does not note the time
        return self.stages


def job_state(outcome: Record[Any] | Failed) -> JobState:
    """Return the job that a record or failure of a `KafkaSource` belongs to."""
    assert isinstance(outcome.origin, JobState)
    return outcome.origin
