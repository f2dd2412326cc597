"""Rows that nobody recorded, drawn from what a registry declares, to try a question out.

Values are uniform over each column's domain. Real ones are not, so a simulation shows the error of
an answer, not the answer.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from dandelion.queries.columns import Ints, Numbers, Rows, Texts, sums
from dandelion.queries.plan import Plan
from dandelion.queries.schema import CategoryColumn, Column, EventSchema

# Rows that are in memory at a time.
_BLOCK: Final = 1 << 20


def simulated_sums(plan: Plan, event: EventSchema, clients: int, draw: np.random.Generator) -> Ints:
    """Exact sums over simulated clients, shape (slots,).

    A client has one row, or from 1 to 2 * rows_max - 1 of them if more than one counts, so that
    some have more than count.
    """
    total = np.zeros(plan.slots, dtype=np.int64)
    for rows in drawn_rows(plan, event, clients, draw):
        total += sums(plan, rows, draw)
    return total


def drawn_rows(
    plan: Plan, event: EventSchema, clients: int, draw: np.random.Generator
) -> Iterator[Rows]:
    """The rows of those clients, some clients at a time; only columns that the plan looks at."""
    block = max(1, _BLOCK // plan.rows_max)
    names = _named(plan)
    for start in range(0, clients, block):
        some = np.arange(start, min(clients, start + block))
        client = np.repeat(some, draw.integers(1, 2 * plan.rows_max, len(some)))
        yield Rows(
            client,
            {
                name: _column(column, len(client), draw)
                for name, column in event.columns.items()
                if name in names
            },
        )


def _column(column: Column, size: int, draw: np.random.Generator) -> Numbers | Texts:
    if isinstance(column, CategoryColumn):
        codes = draw.integers(0, len(column.values), size, dtype=np.int32)
        return Texts(codes, column.values)
    whole = draw.integers(column.lo, column.hi, size, endpoint=True)
    return Numbers(whole.astype(np.float64))


def _named(plan: Plan) -> set[str]:
    """Columns that a plan looks at."""
    names = {measure.column for measure in plan.measures if measure.column is not None}
    names |= {each.column for each in plan.where}
    return names | ({plan.group.column} if plan.group else set())
