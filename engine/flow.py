"""Threads and bounded channels between stages; no other module of the pipeline starts threads.

`ahead` and `in_threads` take and return iterators and run their work in other threads. They hold a bounded number of
items. An exception in another thread is raised where the items are consumed. Closing the resulting iterator, which
`contextlib.closing` does at the end of a `for` loop, stops the other side; a `Scope` stops a whole chain at once.
`Background` is for a loop that gives only some of its items away, and keeps running meanwhile.

Items leave `in_threads` in the order of completion: a slow one holds back its own thread and nothing else.

An item that is None is a tick: nothing has come for a while. Ticks let a consumer look at its clock; they pass through
every stage without waiting for the items before them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

DueIn = Callable[[], float | None]
"""Seconds after which a consumer wants a tick if no item comes; None to wait without end."""


class Scope:
    """All channels of one pipeline, so that closing it does not wait for an item to pass each stage in turn."""

    def __init__(self) -> None:
        self._cancels: list[Callable[[], None]] = []

    def add(self, cancel: Callable[[], None]) -> None:
        """Call `cancel` when the scope is cancelled."""
        self._cancels.append(cancel)

    def cancel(self) -> None:
        """End every channel: what is in it is dropped, whoever waits at it returns."""
        for cancel in self._cancels:
            cancel()


class _ChannelEnded(Exception):
    """A channel has no more items."""


class Channel(Generic[T]):
    """A bounded queue with an end, for any number of threads on either side."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._lock = threading.Lock()
        self._not_full = threading.Condition(self._lock)
        self._not_empty = threading.Condition(self._lock)
        self._finished = False
        self._error: BaseException | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing can be added any more."""
        return self._finished

    def put(self, item: T) -> bool:
        """Wait for room and add `item`; returns False when the channel has ended and nobody will take it."""
        with self._lock:
            self._not_full.wait_for(lambda: self._finished or len(self._items) < self._capacity)
            if self._finished:
                return False
            self._items.append(item)
            self._not_empty.notify()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """End the channel after the items in it, and raise `error` there; only the first call counts."""
        with self._lock:
            if not self._finished:
                self._finished, self._error = True, error
            self._wake()

    def cancel(self) -> None:
        """End the channel now and drop the items in it."""
        with self._lock:
            self._finished = True
            self._items.clear()
            self._wake()

    def items(self, due_in: DueIn | None = None) -> Iterator[T | None]:
        """Iterate until the end; with `due_in`, yield None when no item comes within the seconds it returns."""
        try:
            while True:
                yield self._take(due_in)  # a variable would keep the item alive until the next one is wanted
        except _ChannelEnded:
            return

    def _take(self, due_in: DueIn | None) -> T | None:
        with self._lock:
            if not self._not_empty.wait_for(
                lambda: self._finished or self._items, None if due_in is None else due_in()
            ):
                return None
            if self._items:
                self._not_full.notify()
                return self._items.popleft()
            raise _ChannelEnded if self._error is None else self._error

    def _wake(self) -> None:
        self._not_full.notify_all()
        self._not_empty.notify_all()


def ahead(items: Iterable[T], depth: int, name: str, scope: Scope | None = None) -> Generator[T, None, None]:
    """Iterate over `items` in a thread called `name`, up to `depth` items ahead of the consumer."""
    channel: Channel[T] = Channel(depth)

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not channel.put(item):
                    break
        except BaseException as error:  # noqa: BLE001 (raised again in the consumer)
            channel.finish(error)
        else:
            channel.finish()
        finally:
            _close(iterator)

    yield from _running(channel, [threading.Thread(target=produce, name=name, daemon=True)], scope, None)  # type: ignore[misc]  # no ticks of its own


def in_threads(
    work: Callable[[T], U],
    items: Iterable[T | None],
    workers: int,
    name: str,
    *,
    depth: int = 1,
    due_in: DueIn | None = None,
    scope: Scope | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> Generator[U | None, None, None]:
    """Apply `work` to each item in `workers` threads; results in the order of completion.

    At most `workers` items are being worked on and `depth` results wait, besides those that a worker cannot hand over
    yet. `items` is iterated by one worker at a time. `due_in` is called before each wait for a result, in the thread
    that takes it. `prepare` is called once in each thread before its first item.
    """
    channel: Channel[U | None] = Channel(depth)
    source = _Shared(items, lambda: channel.ended)
    running = _Countdown(workers, channel.finish)

    def run() -> None:
        try:
            prepare()
            for item in source:
                result = None if item is None else work(item)
                del item  # a thread that waits for the next one must not keep an image alive
                wanted = channel.put(result)
                del result
                if not wanted:
                    break
        except BaseException as error:  # noqa: BLE001 (raised again in the consumer)
            channel.finish(error)
        finally:
            running.count_down()

    threads = [threading.Thread(target=run, name=f"{name}-{i}", daemon=True) for i in range(workers)]
    try:
        yield from _running(channel, threads, scope, due_in)
    finally:
        source.close()


class Background(Generic[T, U]):
    """Apply `work` to single items in up to `workers` threads, beside a loop in one thread that takes the results.

    Threads start when they are needed. `submit`, `results`, `is_full` and `close` belong to the thread of the loop;
    `on_result` is called in other threads, to wake it.
    """

    def __init__(self, work: Callable[[T], U], workers: int, name: str, on_result: Callable[[], object]) -> None:
        self._work = work
        self._workers = workers
        self._on_result = on_result
        self._pool = ThreadPoolExecutor(workers, name)
        self._unfinished = 0
        self._finished: deque[Future[U]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether every thread has an item whose result has not been taken yet."""
        return self._unfinished >= self._workers

    @property
    def is_empty(self) -> bool:
        """Whether every result has been taken."""
        return self._unfinished == 0

    @property
    def has_results(self) -> bool:
        """Whether `results` would return any; safe in any thread."""
        return bool(self._finished)

    def submit(self, item: T) -> None:
        """Begin an item; it waits for a thread when there are more items than threads."""
        self._unfinished += 1
        self._pool.submit(self._work, item).add_done_callback(self._done)

    def results(self) -> Iterator[U]:
        """Iterate over the results that are there; raises what `work` raised."""
        while self._finished:
            self._unfinished -= 1
            yield self._finished.popleft().result()

    def close(self) -> None:
        """Drop items that have not begun, and wait for those that have."""
        self._pool.shutdown(cancel_futures=True)

    def _done(self, future: Future[U]) -> None:
        self._finished.append(future)
        self._on_result()


def _running(
    channel: Channel[T], threads: list[threading.Thread], scope: Scope | None, due_in: DueIn | None
) -> Generator[T | None, None, None]:
    """Run `threads` while the items of their channel are consumed; none is left behind."""
    if scope is not None:
        scope.add(channel.cancel)
    for thread in threads:
        thread.start()
    try:
        yield from channel.items(due_in)
    finally:
        channel.cancel()
        for thread in threads:
            thread.join()


class _Shared(Generic[T]):
    """An iterator that several threads take items from, one at a time, as long as somebody wants the results."""

    def __init__(self, items: Iterable[T], unwanted: Callable[[], bool]) -> None:
        self._iterator = iter(items)
        self._unwanted = unwanted
        self._lock = threading.Lock()
        self._ended = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            if self._ended or self._unwanted():
                raise StopIteration
            try:
                return next(self._iterator)
            except BaseException:
                self._ended = True
                raise

    def close(self) -> None:
        _close(self._iterator)


class _Countdown:
    """Calls `done` when `count_down` was called `count` times."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self._left = count
        self._done = done
        self._lock = threading.Lock()

    def count_down(self) -> None:
        with self._lock:
            self._left -= 1
            left = self._left
        if left == 0:
            self._done()


def _close(iterator: object) -> None:
    """Close a generator in a chain at once instead of when it is garbage collected."""
    if isinstance(iterator, Generator):
        iterator.close()


class InProgress:
    """Number of items between two points of a pipeline; thread-safe."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether no item is between the two points."""
        return self._count == 0

    def enter(self) -> None:
        """Count an item that passes the first point."""
        with self._lock:
            self._count += 1

    def leave(self) -> None:
        """Count an item that passes the second point."""
        with self._lock:
            self._count -= 1


class Budget:
    """A bounded amount, such as bytes of memory, that items take and return; first come, first served.

    An item that wants more than there is at all is admitted alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._cancelled = False

    @property
    def used(self) -> int:
        """The amount taken now."""
        return self._used

    @property
    def contended(self) -> bool:
        """Whether an item waits for room, so that items held back elsewhere should be released."""
        return bool(self._queue)

    def take(self, amount: int) -> None:
        """Wait until `amount` is free and take it."""
        turn = object()
        with self._changed:
            self._queue.append(turn)
            self._changed.wait_for(lambda: self._cancelled or (self._queue[0] is turn and self._fits(amount)))
            self._queue.remove(turn)
            self._used += amount
            self._changed.notify_all()

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def cancel(self) -> None:
        """Admit everybody from now on: the pipeline is being closed."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._limit
