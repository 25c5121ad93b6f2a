"""Who translates which inputs, and what is tried again when a worker dies.

Shares get smaller towards the end (guided self-scheduling, Polychronopoulos and Kuck 1987), so that all workers end at
about the same time, however much they differ in speed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from engine.archive.plan import PlannedInput

MAX_UNDER_WAY = 256
"""Inputs that a worker has at most: half a second of a fast GPU, and what a dead worker's successor does again."""

MIN_UNDER_WAY = 8
"""Inputs that keep the stages of a worker busy."""

MAX_DEATHS = 3
"""Deaths of workers, the last of them alone with it, after which an input has failed."""


class Shares:
    """Inputs in their order, the inputs that each worker has now, and those that dead workers had.

    A worker that dies loses all its inputs, of which most had nothing to do with it. They are given out again; those
    that were there at a second death are then translated alone, so that only the input that kills has failed in the
    end. Names of results, which are unique, identify inputs.
    """

    def __init__(self, inputs: Iterable[PlannedInput], num_workers: int) -> None:
        self._waiting = deque(inputs)
        self._num_workers = num_workers
        self._alone: deque[PlannedInput] = deque()
        self._under_way: dict[int, dict[str, PlannedInput]] = {}
        self._isolated: set[int] = set()
        self._deaths: Counter[str] = Counter()

    @property
    def finished(self) -> bool:
        """Whether every input has ended."""
        return not self._waiting and not self._alone and not any(self._under_way.values())

    def give(self, worker: int) -> list[PlannedInput]:
        """Return more inputs for a worker; none when it has enough."""
        has = self._under_way.setdefault(worker, {})
        given: list[PlannedInput] = []
        if self._waiting and worker not in self._isolated:
            wanted = max(MIN_UNDER_WAY, min(MAX_UNDER_WAY, len(self._waiting) // (2 * self._num_workers)))
            if len(has) <= wanted // 2:  # in portions, because each is a message
                given = [self._waiting.popleft() for _ in range(min(wanted - len(has), len(self._waiting)))]
        elif self._alone and not has:
            given = [self._alone.popleft()]
            self._isolated.add(worker)
        has.update((planned.output, planned) for planned in given)
        return given

    def ended(self, worker: int, output: str) -> bool:
        """Note that an input has ended; return False when another worker has it by now, or it has ended before."""
        has = self._under_way.get(worker, {})
        known = has.pop(output, None) is not None
        if not has:
            self._isolated.discard(worker)
        return known

    def died(self, worker: int) -> list[PlannedInput]:
        """Take back the inputs of a dead worker; return those that have failed now."""
        lost = self._under_way.pop(worker, {})
        alone = worker in self._isolated
        self._isolated.discard(worker)
        self._deaths.update(lost.keys())
        failed, again = list[PlannedInput](), list[PlannedInput]()
        for output, planned in lost.items():
            if alone and self._deaths[output] >= MAX_DEATHS:
                failed.append(planned)
            elif self._deaths[output] >= MAX_DEATHS - 1:
                self._alone.append(planned)
            else:
                again.append(planned)
        self._waiting.extendleft(reversed(again))
        return failed
