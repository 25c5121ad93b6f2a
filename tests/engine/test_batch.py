"""Every picture comes out exactly once, in batches of one shape, and few wait."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import Batcher, Chunker, Decoded
from engine.config import BatchConfig, DecodeConfig
from engine.options import Options
from engine.records import Batch, DecodedImage, Failed, Inspected, Record


def decoded(key: str, height: int = 4, width: int = 4, model: str = "") -> Record[DecodedImage]:
    picture = DecodedImage(torch.zeros(height, width, 3, dtype=torch.uint8), "PNG")
    return Record(key=key, payload=picture, options=Options(model=model))


def keys(item: Batch | Failed | None) -> list[str] | str | None:
    """Show a batch as the list of its keys, a failure as its key, a tick as None."""
    if item is None:
        return None
    return item.key if isinstance(item, Failed) else [record.key for record in item.records]


def batches(chunks: list[Decoded | None], **config: float) -> list[list[str] | str | None]:
    return [keys(item) for item in Batcher(BatchConfig(**config))(chunks)]  # type: ignore[arg-type]


def test_a_full_group_leaves_at_once_and_the_rest_at_the_end() -> None:
    chunk: Decoded = [decoded(key) for key in "abcde"]
    assert batches([chunk], size=2) == [["a", "b"], ["c", "d"], ["e"]]


def test_pictures_of_different_shapes_or_models_do_not_meet() -> None:
    chunk: Decoded = [decoded("a"), decoded("b", 8), decoded("c", model="w"), decoded("d"), decoded("e", 8)]
    assert batches([chunk], size=2) == [["a", "d"], ["b", "e"], ["c"]]


def test_failures_and_ticks_pass_through() -> None:
    failed = Failed(key="x", stage="read", reason="r")
    assert batches([[decoded("a"), failed], None, [decoded("b")]], size=4) == ["x", None, ["a", "b"]]


def test_a_tick_lets_overdue_pictures_go() -> None:
    """Given an image that has waited long enough, when the source is idle, then its batch comes before the tick."""
    now_s = [0.0]
    batcher = Batcher(BatchConfig(size=4, max_wait_s=0.5), clock=lambda: now_s[0])

    def chunks() -> Iterator[Decoded | None]:
        yield [decoded("a")]
        now_s[0] = 0.4
        yield [decoded("b", 8)]
        now_s[0] = 0.6
        yield None
        now_s[0] = 1.0
        yield None

    assert [keys(item) for item in batcher(chunks())] == [["a"], ["b"], None]


def test_the_oldest_shape_goes_when_too_much_would_wait() -> None:
    """16 + 32 + 48 pixels may wait together; 16 more may not, so the group that opened first goes, and so on."""
    chunk: Decoded = [decoded("a", 4), decoded("b", 8), decoded("c", 12), decoded("d", 8, 2), decoded("e", 12)]
    assert batches([chunk], size=8, max_pixels=100) == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_large_images_are_batched_by_their_pixels_and_wait_for_no_other() -> None:
    """A full batch of 4x4 has three images; one of 5x5 fills a batch, although more pixels than that may wait."""
    chunk: Decoded = [*(decoded(key) for key in "abcd"), decoded("e", 5, 5), decoded("f", 5, 5)]
    assert batches([chunk], size=8, full_pixels=49) == [["a", "b", "c"], ["e"], ["f"], ["d"]]


def test_a_picture_over_the_limit_travels_alone() -> None:
    chunk: Decoded = [decoded("a"), decoded("big", 40, 40), decoded("b")]
    assert batches([chunk], size=8, max_pixels=100) == [["a"], ["big"], ["b"]]


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["", "w"]))


@settings(deadline=None)
@given(
    chunks=st.lists(st.none() | st.lists(SHAPES, max_size=6), max_size=12),
    size=st.integers(1, 5),
    max_pixels=st.integers(1, 60),
)
def test_every_picture_comes_out_once_and_few_pixels_wait(
    chunks: list[list[tuple[int, int, str]] | None], size: int, max_pixels: int
) -> None:
    given_pixels: dict[str, int] = {}
    came_out: list[str] = []

    def waiting_pixels() -> int:
        return sum(n for key, n in given_pixels.items() if key not in came_out)

    def feed() -> Iterator[Decoded | None]:
        for i, chunk in enumerate(chunks):
            if i:  # all that the last chunk could push out has been taken
                assert waiting_pixels() <= max_pixels
            if chunk is None:
                yield None
                continue
            records = [decoded(f"{i}.{j}", height, width, model) for j, (height, width, model) in enumerate(chunk)]
            given_pixels.update({r.key: r.payload.height * r.payload.width for r in records})
            yield list(records)

    for item in Batcher(BatchConfig(size=size, max_pixels=max_pixels))(feed()):
        if isinstance(item, Batch):
            members = [record.key for record in item.records]
            assert len(members) <= size
            assert len(members) == 1 or sum(given_pixels[key] for key in members) <= max_pixels
            came_out += members
    assert sorted(came_out) == sorted(given_pixels)


def test_the_wait_for_the_oldest_group_is_known() -> None:
    now_s = [0.0]
    batcher = Batcher(BatchConfig(size=4, max_wait_s=0.05), clock=lambda: now_s[0])
    waits: list[float | None] = []

    def chunks() -> Iterator[Decoded | None]:
        waits.append(batcher.due_in())
        yield [decoded("a")]
        now_s[0] = 0.049
        waits.append(batcher.due_in())
        now_s[0] = 0.5
        waits.append(batcher.due_in())

    assert [keys(item) for item in batcher(chunks())] == [["a"]]
    assert waits[0] is None
    assert waits[1] is not None
    assert abs(waits[1] - 0.001) < 1e-9
    assert waits[2] == 0.0


def test_images_that_keep_others_out_are_let_go() -> None:
    """With no limit on waiting, a tick closes the oldest group only while others want to get in."""
    pressed = False
    batcher = Batcher(BatchConfig(size=4), pressed=lambda: pressed)

    def chunks() -> Iterator[Decoded | None]:
        nonlocal pressed
        yield [decoded("a"), decoded("b", 8)]
        yield None
        pressed = True
        yield None
        pressed = False
        yield None

    assert [keys(item) for item in batcher(chunks())] == [None, ["a"], None, None, ["b"]]


def test_an_idle_generator_gets_what_there_is_where_latency_matters() -> None:
    """Given a finite wait, a group leaves at a tick while the generator is idle, and ticks pass once none waits."""
    idle = False

    def leave(**config: float) -> list[list[str] | str | None]:
        nonlocal idle
        idle = False
        batcher = Batcher(BatchConfig(size=4, **config), lambda: 0.0, generator_idle=lambda: idle)  # type: ignore[arg-type]

        def chunks() -> Iterator[Decoded | None]:
            nonlocal idle
            yield [decoded("a"), decoded("b", 8)]
            yield None
            idle = True
            yield [decoded("c")]
            yield None
            yield None
            yield None

        return [keys(item) for item in batcher(chunks())]

    assert leave(max_wait_s=1.0) == [["a", "c"], ["b"], None, None]
    assert leave() == [None, None, None, None, ["a", "c"], ["b"]], "an archive waits for full batches"


KINDS = st.sampled_from(["small", "large", "failed", "tick"])


@settings(max_examples=50, deadline=None)
@given(kinds=st.lists(KINDS, max_size=20), images=st.integers(1, 5), pixels=st.integers(256, 5000))
def test_chunks_keep_the_order_and_their_bounds(kinds: list[str], images: int, pixels: int) -> None:
    def item(i: int, kind: str) -> Record[Inspected] | Failed | None:
        if kind == "tick":
            return None
        if kind == "failed":
            return Failed(key=str(i), stage="read", reason="r")
        width, height = {"small": (16, 16), "large": (60, 50)}[kind]
        image = Inspected(data=b"", format="JPEG", mode="RGB", width=width, height=height)
        return Record(key=str(i), payload=image, options=Options())

    chunker = Chunker(DecodeConfig(chunk_images=images, chunk_pixels=pixels))
    order: list[str | None] = []
    for chunk in chunker(item(i, kind) for i, kind in enumerate(kinds)):
        if chunk is None:
            assert chunker.due_in() is None, "a tick closes the chunk"
            order.append(None)
            continue
        good = [i for i in chunk if not isinstance(i, Failed)]
        assert 1 <= len(chunk) <= images
        assert len(good) <= 1 or sum(i.payload.num_pixels for i in good) <= pixels
        order += [i.key for i in chunk]
    assert order == [None if kind == "tick" else str(i) for i, kind in enumerate(kinds)]


def test_a_requested_size_of_more_than_the_default_fills_at_256_pixels() -> None:
    images: Decoded = [decoded(str(i), 256, width=256) for i in range(64)]
    assert [len(batch) for batch in batches([images], size=64) if isinstance(batch, list)] == [64]


def test_images_of_512_pixels_come_fewer_at_once() -> None:
    images: Decoded = [decoded(str(i), 512, width=512) for i in range(16)]
    assert [len(batch) for batch in batches([images], size=32) if isinstance(batch, list)] == [8, 8]
