"""A plan on the rows of many clients at once, column by column (docs/protocol.md 15.2).

`sums` gives exactly what adding up `Plan.execute` over all clients gives, at some millionth of a
second per row. It is for trying questions out; a client runs `Plan.execute`.

Leaves out: which rows there are, and noise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dandelion.queries.measures import Count, Histogram, Measure, Sum, Where
from dandelion.queries.plan import Plan

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

NO_TEXT: Final = -1


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, shape (rows,), below 2^53 in magnitude; NaN is null."""

    values: npt.NDArray[np.float64]

    @property
    def present(self) -> Mask:
        """Rows that hold a finite number."""
        finite: Mask = np.isfinite(self.values)
        return finite


@dataclass(frozen=True)
class Texts:
    """A column of strings, shape (rows,): indices into `words`, -1 for null."""

    codes: npt.NDArray[np.int32]
    words: tuple[str, ...]

    @property
    def present(self) -> Mask:
        """Rows that hold a string."""
        there: Mask = self.codes != NO_TEXT
        return there


@dataclass(frozen=True)
class Rows:
    """Rows of one event, and whose they are.

    Attributes:
        client: shape (rows,), equal for rows of one client.
        columns: by name, each of shape (rows,). What is not there is null.
    """

    client: Ints
    columns: Mapping[str, Numbers | Texts]

    def where(self, chosen: Mask | Ints) -> "Rows":
        """Some of the rows."""
        return Rows(
            self.client[chosen],
            {
                name: Numbers(column.values[chosen])
                if isinstance(column, Numbers)
                else Texts(column.codes[chosen], column.words)
                for name, column in self.columns.items()
            },
        )


def sums(plan: Plan, rows: Rows, draw: np.random.Generator) -> Ints:
    """The sum of the vectors of all clients, shape (slots,).

    Args:
        plan: the plan.
        rows: of all clients.
        draw: picks the rows of clients that have more than `rows_max`.
    """
    counted = _select(plan, rows, draw)
    group, known = _groups(plan, counted)
    if not known.all():
        counted, group = counted.where(known), group[known]
    vector = np.zeros(plan.slots, dtype=np.int64)
    numbers = _number_columns(plan)
    for index, measure in enumerate(plan.measures):
        # The blocks of one measure follow one another, group by group.
        start = plan.block(index, 0).start
        for chosen, offset, value in _terms(measure, counted, numbers):
            np.add.at(vector, start + group[chosen] * measure.size + offset, value)
    return vector


def _select(plan: Plan, rows: Rows, draw: np.random.Generator) -> Rows:
    """The rows that count: those that satisfy `where`, at most `rows_max` of a client at random."""
    if plan.where:
        holds = np.ones(len(rows.client), dtype=np.bool_)
        for each in plan.where:
            holds &= _holds(each, rows)
        rows = rows.where(holds)
    many = np.unique(rows.client, return_counts=True)[1]
    if many.max(initial=0) <= plan.rows_max:
        return rows
    order = np.lexsort((draw.random(len(rows.client)), rows.client))
    # Within each client's run of rows, in random order: how far from the run's beginning.
    begins = np.repeat(np.cumsum(many) - many, many)
    return rows.where(order[np.arange(len(order)) - begins < plan.rows_max])


def _holds(where: Where, rows: Rows) -> Mask:
    column = rows.columns.get(where.column)
    nowhere = np.zeros(len(rows.client), dtype=np.bool_)
    if isinstance(where.value, str):
        if not isinstance(column, Texts):
            return nowhere
        code = column.words.index(where.value) if where.value in column.words else NO_TEXT - 1
        same: Mask = (column.codes == code) == (where.test == "eq")
        return same & column.present
    if not isinstance(column, Numbers):
        return nowhere
    compare = {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }[where.test]
    found: Mask = compare(np.floor(column.values), where.value) & column.present
    return found


def _groups(plan: Plan, rows: Rows) -> tuple[Ints, Mask]:
    """The group of each row, and whether it has one."""
    if plan.group is None:
        return np.zeros(len(rows.client), np.int64), np.ones(len(rows.client), np.bool_)
    column = rows.columns.get(plan.group.column)
    if not isinstance(column, Texts):
        return np.zeros(len(rows.client), np.int64), np.zeros(len(rows.client), np.bool_)
    places = {value: index for index, value in enumerate(plan.group.values)}
    # The last entry is that of null, which index -1 finds.
    table = np.array([*(places.get(word, -1) for word in column.words), -1], dtype=np.int64)
    group = table[column.codes]
    return group, group >= 0


def _terms(
    measure: Measure, rows: Rows, numbers: frozenset[str]
) -> Iterator[tuple[Mask | slice, Ints | int, Ints | int]]:
    """Rows that add something, where inside a group's block, and how much."""
    if isinstance(measure, Count) and measure.column is None:
        yield slice(None), 0, measure.scale
        return
    column = rows.columns.get(str(measure.column))
    if column is None:
        return
    if isinstance(measure, Count):
        # A text is no value of a column that a plan takes for numbers.
        if isinstance(column, Numbers) or measure.column not in numbers:
            yield column.present, 0, measure.scale
        return
    if not isinstance(column, Numbers):
        return
    chosen = column.present
    whole = np.floor(column.values[chosen])
    clamped = np.clip(whole, measure.lo, measure.hi).astype(np.int64)
    match measure:
        case Sum():
            yield chosen, 0, measure.scale * (clamped - measure.centre)
        case Histogram():
            bins = (clamped - measure.lo) // measure.step
            yield chosen, np.minimum(measure.bins - 1, bins), measure.scale


def _number_columns(plan: Plan) -> frozenset[str]:
    measured = {each.column for each in plan.measures if not isinstance(each, Count)}
    return frozenset(measured | {w.column for w in plan.where if isinstance(w.value, int)})
