"""Two documents side by side: what is better, what is worse, and which differences are within the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engine.bench.document import Document
from engine.bench.rows import Row, rows_of
from engine.bench.timing import Spread

SMALLEST_CHANGE = 0.03
"""Share of the median; a smaller change is not marked even where the values do not overlap."""

Verdict = Literal["better", "worse", "same", "noisy"]


@dataclass(frozen=True)
class Change:
    """One measurement in both documents."""

    before: Row
    after: Row

    @property
    def factor(self) -> float:
        """Median afterwards over median before."""
        return self.after.spread.median / self.before.spread.median

    @property
    def verdict(self) -> Verdict:
        """`noisy` where either measurement spreads too much, `same` where their values overlap or hardly differ."""
        before, after = self.before.spread, self.after.spread
        if _overlap(before, after) or abs(self.factor - 1) < SMALLEST_CHANGE:
            return "noisy" if before.noisy or after.noisy else "same"
        return "better" if (self.factor > 1) == self.before.higher_is_better else "worse"


def changes(before: Document, after: Document) -> Iterator[Change]:
    """Iterate over the measurements that both documents hold, in the order of the first."""
    others = {(row.group, row.name, row.unit): row for row in rows_of(after)}
    for row in rows_of(before):
        other = others.get((row.group, row.name, row.unit))
        if other is not None and row.spread.median and other.spread.median:
            yield Change(row, other)


def differences(before: Document, after: Document) -> list[tuple[str, Any, Any]]:
    """Return what differs in machine, versions and settings: name and both values."""
    found = []
    for part in ("machine", "versions", "settings"):
        names = dict.fromkeys([*before[part], *after[part]])
        for name in names:
            one, other = before[part].get(name), after[part].get(name)
            if one != other:
                found.append((f"{part}: {name}", one, other))
    return found


def _overlap(one: Spread, other: Spread) -> bool:
    return min(one.values) <= max(other.values) and min(other.values) <= max(one.values)
