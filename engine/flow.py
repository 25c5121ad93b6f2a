"""Bounded queues and threads between stages; the rest of the engine never starts a thread of its own.

Both functions take and give iterators, run their work elsewhere, keep order, and hold a fixed number of items.
An exception in the other thread is raised where the items are consumed. Closing the resulting iterator (a
`for` loop does on its way out, through `contextlib.closing`) stops the other side.

An item that is None is a tick: the source has nothing at the moment. It passes through, and everything that is
still under way is given out before it, so that an idle source never keeps finished work waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class _Channel(Generic[T]):
    """A bounded queue with an end: `put` waits for room, `get` for an item; either side can close it."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._finished = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and add `item`; False when nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or len(self._items) < self._capacity)
            if self._finished:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no item follows, because all were given or because of `error`."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._finished or self._items)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def __len__(self) -> int:
        return len(self._items)


def ahead(items: Iterable[T], depth: int, name: str) -> Generator[T, None, None]:
    """Iterate over `items` in a thread called `name`, up to `depth` items ahead of the consumer."""
    channel: _Channel[T] = _Channel(depth)

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

    thread = threading.Thread(target=produce, name=name, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.finish()
        thread.join()


def in_threads(
    work: Callable[[T], U], items: Iterable[T | None], workers: int, name: str
) -> Generator[U | None, None, None]:
    """Apply `work` to each item in `workers` threads, results in the order of the items.

    At most `workers` + 1 items are under way or waiting to be taken.
    """
    iterator = iter(items)
    window: deque[Future[U]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    try:
        for item in iterator:
            if item is None:
                yield from _drain(window)
                yield None
                continue
            window.append(pool.submit(work, item))
            if len(window) > workers:
                yield window.popleft().result()
        yield from _drain(window)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        _close(iterator)


def _drain(window: deque[Future[U]]) -> Iterator[U]:
    while window:
        yield window.popleft().result()


def _close(iterator: object) -> None:
    """Close a generator in a chain at once instead of when the garbage collector gets to it."""
    if isinstance(iterator, Generator):
        iterator.close()
