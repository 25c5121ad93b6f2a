"""Threads between stages: overtaking, bounds, errors, ticks, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.flow import Background, Budget, Scope, ahead, in_threads

Stage = Callable[[Iterator[int | None]], Generator[int | None, None, None]]


def through_ahead(items: Iterator[int | None]) -> Generator[int | None, None, None]:
    return ahead(items, 2, "flow-test")


def through_threads(items: Iterator[int | None]) -> Generator[int | None, None, None]:
    return in_threads(lambda item: item, items, 3, "flow-test")


STAGES = pytest.mark.parametrize("stage", [through_ahead, through_threads])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("flow-test")] == []


class Endless:
    """Counts up for ever, knows how far it got, and whether it was closed."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = False

    def items(self) -> Iterator[int]:
        try:
            while True:
                self.given += 1
                yield self.given
        finally:
            self.closed = True


@STAGES
@settings(deadline=None, max_examples=30)
@given(items=st.lists(st.none() | st.integers(), max_size=30))
def test_everything_comes_out_once(stage: Stage, items: list[int | None]) -> None:
    assert Counter(stage(iter(items))) == Counter(items)


@given(items=st.lists(st.none() | st.integers(), max_size=30))
def test_a_single_thread_keeps_the_order(items: list[int | None]) -> None:
    assert list(through_ahead(iter(items))) == items
    assert list(in_threads(lambda item: item, iter(items), 1, "flow-test")) == items


@STAGES
def test_an_error_in_the_source_reaches_the_consumer_after_what_came_before_it(stage: Stage) -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("source")

    seen: list[int | None] = []
    with pytest.raises(LookupError, match="source"):
        seen.extend(stage(failing()))
    if stage is through_ahead:
        assert seen == [1, 2]


def test_an_error_in_the_work_reaches_the_consumer_after_earlier_results() -> None:
    results = in_threads(lambda x: 10 // x, iter([1, 2, 0, 5]), 1, "flow-test")
    assert [next(results), next(results)] == [10, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_slow_item_holds_back_no_other() -> None:
    """The first item ends only once all others have come out."""
    others_are_out = threading.Event()

    def work(item: int) -> int:
        assert item != 0 or others_are_out.wait(30)
        return item

    seen = []
    for item in in_threads(work, iter(range(200)), 2, "flow-test"):
        seen.append(item)
        if len(seen) == 199:
            others_are_out.set()
    assert seen[-1] == 0
    assert sorted(item for item in seen if item is not None) == list(range(200))


def test_a_tick_passes_a_slow_item() -> None:
    tick_is_out = threading.Event()
    seen = []
    for item in in_threads(lambda _: tick_is_out.wait(30), iter([1, None]), 2, "flow-test"):
        seen.append(item)
        if item is None:
            tick_is_out.set()
    assert seen == [None, True]


def test_a_consumer_gets_a_tick_when_nothing_comes_in_time() -> None:
    ticked = threading.Event()
    results = in_threads(lambda _: ticked.wait(30), iter([1]), 1, "flow-test", due_in=lambda: 0.01)
    assert next(results) is None
    ticked.set()
    assert next(item for item in results if item is not None) is True


def test_a_loop_gets_background_results_as_they_come_and_is_woken_for_each() -> None:
    woken, go_on = threading.Semaphore(0), threading.Event()

    def work(item: int) -> int:
        assert item != 0 or go_on.wait(30)
        return -item

    with closing(Background(work, 2, "flow-test", woken.release)) as background:
        states = [(background.is_empty, background.is_full)]
        background.submit(0)
        background.submit(1)
        assert woken.acquire(timeout=30)
        states.append((background.is_empty, background.is_full))
        assert (background.has_results, list(background.results())) == (True, [-1])  # the slow one holds nothing back
        states.append((background.is_empty, background.is_full))
        go_on.set()
        assert woken.acquire(timeout=30)
        assert list(background.results()) == [0]
        states.append((background.is_empty, background.is_full))
    assert states == [(True, False), (False, True), (False, False), (True, False)]


def test_an_error_in_the_background_reaches_the_loop() -> None:
    woken = threading.Event()
    divisions: Background[int, int] = Background(lambda x: 10 // x, 2, "flow-test", woken.set)
    with closing(divisions) as background:
        background.submit(0)
        assert woken.wait(30)
        with pytest.raises(ZeroDivisionError):
            list(background.results())
        assert background.is_empty


def test_closing_the_background_drops_items_that_have_not_begun() -> None:
    begun: list[int] = []
    has_begun = threading.Event()

    def submit_more() -> None:
        while True:
            background.submit(1)
            time.sleep(0.01)

    def work(item: int) -> None:
        begun.append(item)
        has_begun.set()
        with pytest.raises(RuntimeError, match="shutdown"):  # once it is being closed
            submit_more()

    background = Background(work, 1, "flow-test", lambda: None)
    background.submit(0)
    assert has_begun.wait(30)
    background.close()
    assert begun == [0]


def test_a_cancelled_scope_ends_a_chain_whose_source_is_silent() -> None:
    """Without waiting for an item: each stage alone would wait for the one before it."""
    woken = threading.Event()
    scope = Scope()
    scope.add(woken.set)

    def silent() -> Iterator[int]:
        yield 1
        woken.wait(30)

    chain = in_threads(lambda x: x, ahead(silent(), 1, "flow-test", scope), 2, "flow-test", scope=scope)
    with closing(in_threads(lambda x: x, chain, 2, "flow-test", scope=scope)) as results:
        assert next(results) == 1
        scope.cancel()
    assert woken.is_set()


@STAGES
def test_closing_early_stops_the_threads_and_closes_the_source(stage: Stage) -> None:
    source = Endless()
    with closing(stage(source.items())) as stream:
        assert next(stream) is not None
    assert source.closed


@STAGES
def test_closing_the_last_of_a_chain_closes_all(stage: Stage) -> None:
    source = Endless()
    with closing(stage(stage(stage(source.items())))) as stream:
        assert next(stream) is not None
        assert next(stream) is not None
    assert source.closed


@STAGES
def test_an_error_in_the_consumer_closes_the_source(stage: Stage) -> None:
    source = Endless()

    def consume() -> None:
        with closing(stage(source.items())) as stream:
            for item in stream:
                assert item is not None
                item // 0

    with pytest.raises(ZeroDivisionError):
        consume()
    assert source.closed


def test_a_thread_runs_no_further_ahead_than_it_may() -> None:
    """Besides the items in the queue there is the one that waits for room."""
    depth = 3
    source = Endless()
    full = threading.Event()

    def watched() -> Iterator[int]:
        for item in source.items():
            if item == 1 + depth + 2:
                full.set()
            yield item

    with closing(ahead(watched(), depth, "flow-test")) as stream:
        for _ in range(20):
            taken = next(stream)
            assert source.given <= taken + depth + 1
        assert full.is_set()


def test_no_more_work_is_under_way_than_there_are_workers_and_two() -> None:
    """One result waits in the channel, one is with the consumer, and each worker has one item."""
    workers = 3
    lock = threading.Lock()
    running: list[int] = []
    most_running, pulled, taken = 0, 0, 0

    def work(item: int) -> int:
        nonlocal most_running
        with lock:
            running.append(item)
            most_running = max(most_running, len(running))
        with lock:
            running.remove(item)
        return item

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(60):
            pulled += 1
            assert pulled <= taken + workers + 2
            yield item

    with closing(in_threads(work, source(), workers, "flow-test")) as stream:
        for _ in stream:
            taken += 1
    assert taken == 60
    assert most_running <= workers


def test_work_really_runs_at_the_same_time() -> None:
    """Each piece of work waits for the other: one after the other they would never end."""
    meeting = threading.Barrier(2, timeout=30)
    assert len(list(in_threads(lambda _: meeting.wait(), iter([1, 2]), 2, "flow-test"))) == 2


@STAGES
def test_a_tick_brings_out_what_is_under_way(stage: Stage) -> None:
    """Given a source that is idle after one item, when it ticks, then the item is out before it gives another."""
    out: list[int | None] = []

    def idle() -> Iterator[int | None]:
        yield 1
        yield None
        assert asked_again.wait(30)
        yield 2

    asked_again = threading.Event()
    with closing(stage(idle())) as stream:
        out.append(next(stream))
        out.append(next(stream))
        assert set(out) == {1, None}
        asked_again.set()
        assert list(stream) == [2]


def test_threads_carry_the_name_of_their_stage() -> None:
    (name,) = in_threads(lambda _: threading.current_thread().name, iter([1]), 1, "flow-test")
    assert name is not None
    assert name.startswith("flow-test")


def test_closing_takes_no_more_items_than_are_being_taken() -> None:
    """With many threads that wait for their turn at a slow source, each would take one more."""
    taken = 0

    def slow() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken
            waited.wait(0.05)

    waited = threading.Event()
    with closing(in_threads(lambda x: x, slow(), 50, "flow-test")) as results:
        next(results)
        before = taken
    assert taken <= before + 3


def test_a_budget_admits_what_fits_and_a_larger_item_alone() -> None:
    budget = Budget(10)
    budget.take(6)
    budget.take(4)
    admitted: list[str] = []

    def enter(name: str, amount: int) -> None:
        budget.take(amount)
        admitted.append(name)

    large = threading.Thread(target=enter, args=("large", 50))
    large.start()
    while not budget.contended:
        pass
    small = threading.Thread(target=enter, args=("small", 1))
    small.start()
    assert admitted == [], "first come, first served"
    budget.give_back(6)
    assert admitted == [], "not before it is alone"
    budget.give_back(4)
    large.join(30)
    assert admitted == ["large"]
    budget.give_back(50)
    small.join(30)
    assert (admitted, budget.used, budget.contended) == (["large", "small"], 1, False)


def test_a_cancelled_budget_holds_nobody_back() -> None:
    budget = Budget(1)
    budget.take(1)
    waiting = threading.Thread(target=budget.take, args=(1,))
    waiting.start()
    budget.cancel()
    waiting.join(30)
    assert not waiting.is_alive()


def test_each_thread_is_prepared_once_before_its_first_item() -> None:
    prepared: list[str] = []
    names = in_threads(
        lambda _: threading.current_thread().name in prepared,
        iter(range(20)),
        2,
        "flow-test",
        prepare=lambda: prepared.append(threading.current_thread().name),
    )
    assert all(names)
    assert sorted(prepared) == ["flow-test-0", "flow-test-1"]


def test_a_thread_that_waits_keeps_no_item_and_no_result() -> None:
    class Image:
        """Something that a weak reference can be made to."""

    given, made = [weakref.ref(image := Image())], list[weakref.ref[Image]]()
    go_on = threading.Event()

    def items() -> Iterator[Image]:
        nonlocal image
        yield image
        del image
        go_on.wait(60)

    def work(_item: Image) -> Image:
        result = Image()
        made.append(weakref.ref(result))
        return result

    with closing(in_threads(work, items(), 1, "work")) as results:
        assert next(results) is not None
        for _ in range(1000):
            gc.collect()
            if given[0]() is None and made[0]() is None:
                break
            time.sleep(0.01)
        assert (given[0](), made[0]()) == (None, None)
        go_on.set()
