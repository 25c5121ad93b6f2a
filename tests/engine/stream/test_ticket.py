"""A message names itself by its position, and its bytes are counted for the bound on memory."""

from __future__ import annotations

from engine.stream.ticket import Message, Ticket


def message(value: bytes = b"", key: bytes | None = None) -> Message:
    return Message(topic="jobs", partition=3, offset=42, timestamp_s=0.0, key=key, value=value)


def test_it_is_named_by_its_position_which_no_other_has() -> None:
    assert message().position == "jobs-3-42"


def test_its_size_has_value_and_key_and_something_for_empty_ones() -> None:
    assert message(bytes(1000), b"key").num_bytes - message().num_bytes == 1003
    assert message().num_bytes > 0, "a million empty messages are not nothing"


def test_an_image_inside_a_message_is_not_printed() -> None:
    ticket = Ticket(message(b"pixels" * 1000), epoch=1, id="x", wait_s=0.0)
    assert "pixels" not in repr(ticket)
    assert len(repr(ticket)) < 1000


def test_two_tickets_share_no_result() -> None:
    one, other = (Ticket(message(), epoch=1, id=id, wait_s=0.0) for id in "ab")
    one.result["output"] = "a.jpg"
    assert other.result == {}
    assert one.attempts == 1
