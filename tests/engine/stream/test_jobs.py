from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import SkipImage
from engine.options import Options, Size
from engine.stream.jobs import Job, JobState, Message, data_uri, parse_job, read_id, schema

DEFAULTS = Options(model="first")


def parse(**fields: object) -> Job:
    return parse_job(json.dumps(fields).encode(), None, "t-0-0", lambda _: DEFAULTS)


def test_fields_that_a_job_omits_have_defaults() -> None:
    job = parse(id="a", source="s3://b/a.jpg", size=128, quality=70, format="png")
    assert job.options == Options(model="first", size=Size.parse("128"), quality=70, format="png")
    assert (job.id, job.source, job.output, job.inline) == ("a", "s3://b/a.jpg", None, False)


def test_the_suffix_of_the_output_sets_the_format() -> None:
    assert parse(id="a", source="a.png", output="x/a.webp").options.format == "webp"
    assert parse(id="a", source="a.png", output="x/a.webp", format="jpeg").output == "x/a.jpg"


def test_a_job_may_contain_its_image() -> None:
    assert parse(id="a", source=data_uri(b"\xff\xd8")).data == b"\xff\xd8"
    assert parse(id="a", source="data:,%41").data == b"A"


def test_a_message_that_is_not_json_is_an_image_with_the_key_as_id() -> None:
    job = parse_job(b"\xff\xd8", b"cat", "t-0-0", lambda _: DEFAULTS)
    assert (job.id, job.data) == ("cat", b"\xff\xd8")
    assert parse_job(b"\xff\xd8", None, "t-0-7", lambda _: DEFAULTS).id == "t-0-7"


def test_unknown_fields_are_refused_unless_they_begin_with_x() -> None:
    assert parse(**{"id": "a", "source": "a", "x-trace": {"deep": 1}}).id == "a"
    with pytest.raises(SkipImage, match="colour"):
        parse(id="a", source="a", colour="red")


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text needs Unicode's tables
@given(st.dictionaries(st.sampled_from([*schema("job-v1")["properties"], "y"]), st.text() | st.integers() | st.none()))
def test_any_message_is_a_job_or_an_error_of_one_line(fields: dict[str, object]) -> None:
    with suppress(SkipImage):
        assert parse(**fields).id == fields["id"]


@given(st.binary())
def test_every_message_has_an_id(value: bytes) -> None:
    assert read_id(value, None, "t-0-0").encode()
    assert read_id(value, b"\xff", "t-0-0").encode()


def test_digests_are_equal_for_equal_jobs_only() -> None:
    job = parse(id="a", source="a.jpg", output="a.jpg")
    digest = job.digest(b"image", "sha")
    assert job.digest(b"image", "sha") == digest
    others = [
        job.digest(b"other", "sha"),
        job.digest(b"image", "other"),
        replace(job, id="b").digest(b"image", "sha"),
        replace(job, output="b.jpg").digest(b"image", "sha"),
        replace(job, options=replace(job.options, quality=1)).digest(b"image", "sha"),
    ]
    assert len({digest, *others}) == 6


def test_incomplete_base64_is_refused() -> None:
    with pytest.raises(SkipImage, match="base64"):
        parse(id="a", source="data:;base64," + base64.b64encode(b"image").decode()[:-1])


def message(value: bytes = b"", key: bytes | None = None) -> Message:
    return Message(topic="jobs", partition=3, offset=42, timestamp_s=0.0, key=key, value=value)


def test_the_position_of_a_message_has_topic_partition_and_offset() -> None:
    assert message().position == "jobs-3-42"


def test_the_size_of_a_message_counts_value_key_and_an_overhead() -> None:
    assert message(bytes(1000), b"key").num_bytes - message().num_bytes == 1003
    assert message().num_bytes > 0, "a million empty messages are not nothing"


def test_the_representation_of_a_message_omits_its_image() -> None:
    state = JobState(message=message(b"pixels" * 1000), epoch=1, id="x", wait_s=0.0)
    assert "pixels" not in repr(state)
    assert len(repr(state)) < 1000


def test_every_job_has_a_result_of_its_own() -> None:
    one, other = (JobState(message=message(), epoch=1, id=id, wait_s=0.0) for id in "ab")
    one.result["output"] = "a.jpg"
    assert other.result == {}
    assert one.attempts == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'\xef\xbb\xbf{"id": "x", "source": "x"}', "byte-order mark (UTF-8)"),
        ('{"id": "x", "source": "x"}'.encode("utf-16"), "byte-order mark (UTF-16)"),
        (b'\0\0\0\0\x2a{"id": "x", "source": "x"}', "framing of a schema registry (schema id 42)"),
        (b"\0\0\0\1\0\x02\x0aabcde", "framing of a schema registry (schema id 256)"),
    ],
)
def test_an_unsupported_encoding_of_a_message_is_named(value: bytes, reason: str) -> None:
    with pytest.raises(SkipImage, match=re.escape(reason)):
        parse_job(value, b"k", "t-0-0", lambda _: DEFAULTS)


@pytest.mark.parametrize("head", [b"\0\0\0\x20ftypheic", b"\0\0\0\x0cjP  \r\n", b"\0\0\0\x0cJXL \r\n", b"\0\0\1\0\1\0"])
def test_an_image_may_begin_with_a_zero_byte(head: bytes) -> None:
    assert parse_job(head + bytes(50), b"k", "t-0-0", lambda _: DEFAULTS).data == head + bytes(50)


def test_the_id_of_a_job_with_a_byte_order_mark_is_found() -> None:
    assert read_id(b'\xef\xbb\xbf{"id": "x"}', None, "t-0-0") == "x"
