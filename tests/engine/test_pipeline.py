"""The whole arrow in memory: one outcome for each image, in order where it can be, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.batch import images_of_full
from engine.config import BatchConfig, DecodeConfig, GenerateConfig, PipelineConfig
from engine.errors import SkipImage, StopRun
from engine.observe.metrics import Tally
from engine.options import Options, Size
from engine.pipeline import Pipeline, Translate, fitted
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.testing import MemorySink, MemorySource
from tests.images import photo, picture, pixels

OPTIONS = Options(size=Size.parse("native"), format="png")
NAMES = ("read", "inspect", "decode", "batch", "generate", "encode", "store")


def negative(pixels_NHWC: Tensor) -> Tensor:
    return 255 - pixels_NHWC


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert [name for name in left if name.startswith(NAMES)] == []


def run(
    images: list[tuple[str, bytes] | None],
    translate: Translate = negative,
    sink: MemorySink | None = None,
    **batch: float,
) -> tuple[MemorySink, list[Outcome], Tally]:
    source, sink, tally = MemorySource(images, OPTIONS), sink or MemorySink(), Tally()
    config = PipelineConfig(batch=BatchConfig(**batch), decode=DecodeConfig(max_pixels=1_000_000))  # type: ignore[arg-type]
    Pipeline(source, sink, {"": translate}, config, tally).run()
    return sink, source.outcomes, tally


def test_each_image_becomes_its_own_translation() -> None:
    images = [(f"{i}.png", photo(20 + i % 3, 30, seed=i, format="PNG")) for i in range(25)]
    sink, outcomes, tally = run(list(images))
    assert sorted(outcome.key for outcome in outcomes) == sorted(key for key, _ in images)
    for key, data in images:
        assert np.array_equal(pixels(sink.results[key].data), 255 - pixels(data))
    assert (tally.converted, tally.failed) == (25, 0)
    assert {tally.stage_images[stage] for stage in ("inspect", "decode", "generate", "encode", "store")} == {25}


def test_a_slow_image_holds_back_no_other() -> None:
    """From inspection to acknowledgement: the first image is translated only once all others have been stored."""
    others_are_stored = threading.Event()
    slow_HWC = torch.from_numpy(np.array(picture(24, 24, seed=99)))

    def translate(pixels_NHWC: Tensor) -> Tensor:
        assert pixels_NHWC.shape[1:] != slow_HWC.shape or others_are_stored.wait(60)
        return pixels_NHWC

    class Sink(MemorySink):
        def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
            if len(self.results) >= 60:
                others_are_stored.set()
            return outcomes

    images = [("slow", photo(24, 24, format="PNG", seed=99))]
    images += [(f"{i}.png", photo(20, 30, seed=i, format="PNG")) for i in range(60)]
    source = MemorySource(images, OPTIONS)
    config = PipelineConfig(
        batch=BatchConfig(size=4, max_wait_s=0.01), generate=GenerateConfig(device="cpu", batches_in_flight=2)
    )
    Pipeline(source, Sink(), {"": translate}, config).run()
    assert len(source.outcomes) == 61
    assert not any(isinstance(outcome, Failed) for outcome in source.outcomes)


def test_memory_in_flight_stays_within_its_bound_or_holds_one_image() -> None:
    """With room for no more than one image at a time, groups that wait for more are closed instead of waiting."""
    most = 0
    images = [(f"{i}.png", photo(20 + i % 3, 30, seed=i, format="PNG")) for i in range(12)]
    pipeline = Pipeline(
        source := MemorySource(images, OPTIONS), MemorySink(), {"": negative}, PipelineConfig(in_flight_bytes=1)
    )

    class Watching(MemorySink):
        def store(self, record: Record[Encoded]) -> Stored:
            nonlocal most
            most = max(most, len(pipeline._footprints))
            return super().store(record)

    pipeline._sink = Watching()
    pipeline.run()
    assert len(source.outcomes) == 12
    assert most == 1
    assert pipeline._budget.used == 0


def test_an_image_that_takes_more_memory_than_there_is_is_refused_with_its_numbers() -> None:
    giant = photo(3000, 2000, format="PNG")
    pipeline = Pipeline(
        source := MemorySource([("a", photo(format="PNG")), ("b", giant)], OPTIONS),
        sink := MemorySink(),
        {"": negative},
        PipelineConfig(max_image_bytes=50_000_000),
    )
    pipeline.run()
    assert list(sink.results) == ["a"]
    (failed,) = (outcome for outcome in source.outcomes if isinstance(outcome, Failed))
    assert failed.stage == "inspect"
    assert failed.reason.startswith("3000x2000 RGB at 3000x2000 takes about 1")
    assert failed.reason.endswith("MB of memory, over the limit of 50 MB (--memory raises it)")


def test_a_small_image_is_not_enlarged_beyond_the_limit() -> None:
    options = replace(OPTIONS, size=Size.parse("13000x13000"))
    pipeline = Pipeline(
        source := MemorySource([("a", photo(64, 64, format="PNG"))], options), MemorySink(), {"": negative}
    )
    pipeline.run()
    assert [o.reason for o in source.outcomes if isinstance(o, Failed)] == [
        "a result of 13000x13000 from 64x64 is over the limit of 50.0 megapixels (--max-output-pixels raises it)"
    ]


def test_the_memory_that_was_asked_for_bounds_images_on_a_cpu() -> None:
    asked = PipelineConfig(generate=GenerateConfig(device="cpu", memory_bytes=1 << 30))
    assert (fitted(asked).in_flight_bytes, fitted(asked).max_image_bytes) == (1 << 29, 1 << 30)


def test_bad_images_cost_only_themselves() -> None:
    good, cut = photo(format="PNG"), photo(200, 150, format="PNG")[:-3000]
    sink, outcomes, tally = run(
        [("a", good), ("b", b""), ("c", cut), ("d", good), ("e", photo(2000, 600)), ("f", good)]
    )
    assert sorted(sink.results) == ["a", "d", "f"]
    assert sink.failures["b"] == "empty file"
    assert "truncated" in sink.failures["c"]
    assert "megapixels" in sink.failures["e"]
    assert {o.key: o.stage for o in outcomes if isinstance(o, Failed)} == {
        "b": "inspect",
        "c": "decode",
        "e": "inspect",
    }
    assert (tally.converted, tally.failed) == (3, 3)


def test_batches_hold_one_shape_and_no_more_than_asked() -> None:
    shapes: list[tuple[int, ...]] = []

    def watching(pixels_NHWC: Tensor) -> Tensor:
        shapes.append(tuple(pixels_NHWC.shape))
        return pixels_NHWC

    run([(str(i), photo(20 + i % 2, 30, seed=i)) for i in range(11)], watching, size=3)
    assert all(count <= 3 for count, *_ in shapes)
    assert {shape[1:] for shape in shapes} == {(30, 20, 3), (30, 21, 3)}
    assert sum(count for count, *_ in shapes) == 11


def test_an_image_the_generator_refuses_fails_alone() -> None:
    """Given a batch of three of which one is refused, then the other two are translated all the same."""
    dark = photo(20, 30, format="PNG", seed=1)
    refused = torch.from_numpy(np.array(picture(20, 30, seed=2)))

    def picky(pixels_NHWC: Tensor) -> Tensor:
        if any(torch.equal(one, refused) for one in pixels_NHWC):
            raise SkipImage("too strange")
        return pixels_NHWC

    strange = photo(20, 30, format="PNG", seed=2)
    sink, _, _ = run([("a", dark), ("b", strange), ("c", dark)], picky, size=3)
    assert sorted(sink.results) == ["a", "c"]
    assert sink.failures == {"b": "too strange"}


def test_an_idle_source_does_not_hold_back_what_is_ready() -> None:
    """Given one image and then silence, when it has waited long enough, then its result comes without another image."""
    stored = threading.Event()

    class Noticing(MemorySink):
        def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
            stored.set()
            return outcomes

    class Idle(MemorySource):
        def records(self) -> Iterator[Record[bytes] | Failed | None]:
            yield from super().records()
            for _ in range(3000):
                if stored.wait(0.01):
                    return
                yield None

    source = Idle([("a", photo())], OPTIONS)
    Pipeline(source, Noticing(), {"": negative}, PipelineConfig(batch=BatchConfig(size=8, max_wait_s=0.02))).run()
    assert stored.is_set()
    assert [outcome.key for outcome in source.outcomes] == ["a"]


@pytest.mark.parametrize("where", ["source", "generate", "store"])
def test_what_is_not_about_one_image_stops_the_run(where: str) -> None:
    """And it is raised where the run was started, all threads ended, all that was acknowledged stored."""

    class Source(MemorySource):
        def records(self) -> Iterator[Record[bytes] | Failed | None]:
            for i, record in enumerate(super().records()):
                if where == "source" and i == 30:
                    raise StopRun("source")
                yield record

    class Sink(MemorySink):
        def store(self, record: Record[Encoded]) -> Stored:
            if where == "store" and len(self.results) == 5:
                raise StopRun("store")
            return super().store(record)

    calls = 0

    def translate(pixels_NHWC: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if where == "generate" and calls == 4:
            raise StopRun("generate")
        return pixels_NHWC

    source, sink = Source([(f"{i:02}", photo(seed=i)) for i in range(40)], OPTIONS), Sink()
    with pytest.raises(StopRun, match=where):
        Pipeline(source, sink, {"": translate}).run()
    assert {outcome.key for outcome in source.outcomes} <= set(sink.results)
    assert len(source.outcomes) < 40


def test_leaving_early_stops_all_threads() -> None:
    taken: list[int] = []

    def endless() -> Iterator[tuple[str, bytes]]:
        data = photo()
        while True:
            taken.append(1)
            yield str(len(taken)), data

    source = MemorySource(endless(), OPTIONS)
    with closing(Pipeline(source, MemorySink(), {"": negative}).outcomes()) as outcomes:
        assert next(outcomes) is not None
    assert len(source.outcomes) >= 1


def test_only_a_fixed_number_of_images_is_under_way() -> None:
    """However many there are: what is read minus what has ended stays below a bound that depends on settings alone."""
    taken = 0
    most = 0
    data = photo(16, 16)

    def many() -> Iterator[tuple[str, bytes]]:
        nonlocal taken
        for i in range(1500):
            taken += 1
            yield str(i), data

    source = MemorySource(many(), OPTIONS)
    config = PipelineConfig(decode=DecodeConfig(workers=2, chunk_images=4), batch=BatchConfig(size=4))
    for _ in Pipeline(source, MemorySink(), {"": negative}, config).outcomes():
        most = max(most, taken - len(source.outcomes))
    assert len(source.outcomes) == 1500
    # Chunks of 4, batches of 4: in each channel, with each worker, and waiting to be read.
    assert most <= 4 * 30


def test_an_image_does_not_wait_for_others_while_the_generator_is_idle() -> None:
    acknowledged = threading.Event()

    class Waiting(MemorySource):
        def records(self) -> Iterator[Record[bytes] | Failed | None]:
            yield Record(key="one", payload=photo(), options=OPTIONS)
            assert acknowledged.wait(60), "it waits for a full batch"

        def acknowledge(self, outcome: Outcome) -> None:
            acknowledged.set()

    config = PipelineConfig(batch=BatchConfig(size=4, max_wait_s=3600.0))
    Pipeline(Waiting([], OPTIONS), MemorySink(), {"": negative}, config).run()


def test_what_was_left_open_suits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = fitted(PipelineConfig(generate=GenerateConfig(device="cpu")))
    assert (on_cpu.batch.size, on_cpu.generate.batches_in_flight, on_cpu.decode) == (4, 1, DecodeConfig())
    assert images_of_full(on_cpu.batch, 256 * 256) == images_of_full(on_cpu.batch, 256 * 384) == 4
    assert images_of_full(on_cpu.batch, 512 * 684) == 1, "a batch of these is no faster, and takes more memory"
    asked = PipelineConfig(generate=GenerateConfig(device="cpu"), batch=BatchConfig(size=4))
    assert images_of_full(fitted(asked).batch, 512 * 684) == 4
    monkeypatch.setattr("engine.pipeline.gpu_of", torch.device)  # a machine with a card
    on_gpu = fitted(PipelineConfig(generate=GenerateConfig(device="cuda:0")))
    assert (on_gpu.batch.size, on_gpu.generate.batches_in_flight, on_gpu.decode.chunk_images) == (32, 3, 32)
    asked = PipelineConfig(
        decode=DecodeConfig(jpegs="cpu"),
        batch=BatchConfig(size=7),
        generate=GenerateConfig(device="cuda:0", batches_in_flight=2),
    )
    assert replace(fitted(asked), in_flight_bytes=None, max_image_bytes=None) == asked


def test_a_model_that_is_asked_for_by_name_translates() -> None:
    class Two(MemorySource):
        def records(self) -> Iterator[Record[bytes] | Failed | None]:
            for name in ("one", "two"):
                options = Options(model=name, size=Size.parse("native"), format="png")
                yield Record(key=name, payload=photo(format="PNG"), options=options)

    sink = MemorySink()
    Pipeline(Two([]), sink, {"one": lambda x: x, "two": negative}).run()
    one, two = pixels(sink.results["one"].data), pixels(sink.results["two"].data)
    assert np.array_equal(one, 255 - two)
