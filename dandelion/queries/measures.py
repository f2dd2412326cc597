"""The parts of a plan: group, conditions, measures, outputs (docs/protocol.md 15.1, 15.2, 15.4).

Leaves out: what is allowed in the bytes of a plan (`parser`) and what it does with rows (`plan`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dandelion.encoding import Json

Row = Mapping[str, object]
"""One event: column name to string, number or None."""

Choose = Callable[[int, int], Sequence[int]]
"""`choose(n, k)`: k distinct indices below n, drawn uniformly. The only randomness of a plan."""

Test = Literal["eq", "ne", "lt", "le", "gt", "ge"]

TESTS: Final = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Group:
    """The column that splits the answer, and the values that have slots."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Where:
    """One condition. A null satisfies none, not even `ne`."""

    column: str
    test: Test
    value: str | int

    def holds(self, row: Row) -> bool:
        """Whether the row satisfies the condition."""
        if isinstance(self.value, str):
            text = row.get(self.column)
            return isinstance(text, str) and (text == self.value) == (self.test == "eq")
        number = floor(row.get(self.column))
        if number is None:
            return False
        match self.test:
            case "eq":
                return number == self.value
            case "ne":
                return number != self.value
            case "lt":
                return number < self.value
            case "le":
                return number <= self.value
            case "gt":
                return number > self.value
            case "ge":
                return number >= self.value


@dataclass(frozen=True)
class Count:
    """Rows, or rows in which `column` is not null."""

    scale: int
    column: str | None = None

    op = "count"
    size = 1

    @property
    def magnitude(self) -> int:
        """The largest magnitude that one row can add to a slot."""
        return self.scale


@dataclass(frozen=True)
class Sum:
    """Sum of a number column, clamped to `lo..hi` and taken from `centre`."""

    scale: int
    column: str
    lo: int
    hi: int
    centre: int

    op = "sum"
    size = 1

    @property
    def magnitude(self) -> int:
        """The largest magnitude that one row can add to a slot."""
        return self.scale * max(self.hi - self.centre, self.centre - self.lo)


@dataclass(frozen=True)
class Histogram:
    """Rows per bin of a number column clamped to `lo..hi`; `bins` bins of equal width."""

    scale: int
    column: str
    lo: int
    hi: int
    bins: int

    op = "histogram"

    @property
    def size(self) -> int:
        """Slots of one group."""
        return self.bins

    @property
    def magnitude(self) -> int:
        """The largest magnitude that one row can add to a slot."""
        return self.scale

    @property
    def step(self) -> int:
        """Width of a bin."""
        return (self.hi - self.lo) // self.bins

    def edges(self, index: int) -> tuple[int, int]:
        """Lower and upper end of a bin. The upper end belongs to the last bin only."""
        return self.lo + index * self.step, self.lo + (index + 1) * self.step


Measure = Count | Sum | Histogram


@dataclass(frozen=True)
class Output:
    """One column of the answer: a measure, and for sums and averages its count (15.4)."""

    op: Literal["count", "sum", "avg", "histogram"]
    name: str
    measure: int
    count: int | None = None


def floor(value: object) -> int | None:
    """A number rounded down to an integer; None for what is not a finite number (15.2)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return math.floor(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return floor(float(value))
    return None


def measure_object(measure: Measure) -> Json:
    document: dict[str, Json] = {"op": measure.op, "scale": measure.scale}
    if measure.column is not None:
        document["column"] = measure.column
    if isinstance(measure, Sum | Histogram):
        document |= {"hi": measure.hi, "lo": measure.lo}
    if isinstance(measure, Sum):
        document["centre"] = measure.centre
    if isinstance(measure, Histogram):
        document["bins"] = measure.bins
    return document


def output_object(output: Output) -> Json:
    document: dict[str, Json] = {
        "measure": output.measure,
        "name": output.name,
        "op": output.op,
    }
    if output.count is not None:
        document["count"] = output.count
    return document
