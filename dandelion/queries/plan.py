"""A plan: what a client computes on its own events, and how far it can go (docs/protocol.md 15).

A plan is data, a closed list of operators. `Plan.parse` accepts exactly what section 15 allows;
`Plan.execute` turns a client's rows into its vector; `slots`, `linf` and `l2sq` follow from the
plan alone, whatever the rows hold.

Leaves out: how a plan is written (`sql`) and how released sums are read (`decode`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from dandelion.encoding import Json, canonical_json, parse_canonical_json
from dandelion.queries.measures import (
    Choose,
    Count,
    Group,
    Histogram,
    Measure,
    Output,
    Row,
    Sum,
    Where,
    floor,
    measure_object,
    output_object,
)


@dataclass(frozen=True)
class Block:
    """Where one measure of one group lies in the vector: `start .. start + size`."""

    measure: int
    group: int
    start: int
    size: int


@dataclass(frozen=True)
class Plan:
    """A parsed plan. Constructing one directly checks nothing; `parse` does."""

    query: str
    sql: str
    event: str
    epsilon: str
    delta: str
    rows_max: int
    measures: tuple[Measure, ...]
    outputs: tuple[Output, ...]
    group: Group | None = None
    where: tuple[Where, ...] = ()

    @classmethod
    def parse(cls, source: bytes | Mapping[str, object]) -> "Plan":
        """Reads plan bytes, or the object they hold.

        Raises:
            WireError: `bad_plan`, with the path of what is wrong.
        """
        from dandelion.queries.parser import parse_object  # which makes plans itself

        if isinstance(source, bytes):
            return parse_object(parse_canonical_json(source))
        canonical_json(cast("dict[str, Json]", source))
        return parse_object(source)

    def to_object(self) -> dict[str, Json]:
        """The plan as section 15.1 writes it; `parse(plan.to_object()) == plan`."""
        document: dict[str, Json] = {
            "delta": self.delta,
            "epsilon": self.epsilon,
            "event": self.event,
            "kind": "aggregate",
            "measures": [measure_object(measure) for measure in self.measures],
            "outputs": [output_object(output) for output in self.outputs],
            "query": self.query,
            "rows_max": self.rows_max,
            "sql": self.sql,
        }
        if self.group is not None:
            document["group"] = {"column": self.group.column, "values": list(self.group.values)}
        if self.where:
            document["where"] = [
                {"column": each.column, "test": each.test, "value": each.value}
                for each in self.where
            ]
        return document

    def encode(self) -> bytes:
        """Canonical plan bytes (section 3.3)."""
        return canonical_json(self.to_object())

    @cached_property
    def groups(self) -> tuple[str | None, ...]:
        """Group values in slot order; one None without a group."""
        return self.group.values if self.group else (None,)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in slot order: measure by measure, each group by group."""
        blocks = []
        start = 0
        for index, measure in enumerate(self.measures):
            for group in range(len(self.groups)):
                blocks.append(Block(index, group, start, measure.size))
                start += measure.size
        return tuple(blocks)

    def block(self, measure: int, group: int) -> Block:
        """The block of one measure and one group."""
        return self.blocks[measure * len(self.groups) + group]

    @cached_property
    def slots(self) -> int:
        """Words in the vector."""
        return len(self.groups) * sum(measure.size for measure in self.measures)

    @cached_property
    def linf(self) -> int:
        """No value exceeds this in magnitude (15.3)."""
        return self.rows_max * max(measure.magnitude for measure in self.measures)

    @cached_property
    def l2sq(self) -> int:
        """No sum of squares exceeds this (15.3): all rows may fall into one group."""
        return self.rows_max**2 * sum(measure.magnitude**2 for measure in self.measures)

    def slot_names(self) -> tuple[str, ...]:
        """What each slot counts, for people: `UA: sum(dep_delay)`."""
        names = []
        for block in self.blocks:
            measure = self.measures[block.measure]
            group = self.groups[block.group]
            prefix = "" if group is None else f"{group}: "
            base = f"{prefix}{measure.op}({measure.column or '*'})"
            if isinstance(measure, Histogram):
                names += [
                    f"{base} {low}..{high}" for low, high in map(measure.edges, range(measure.bins))
                ]
            else:
                names.append(base)
        return tuple(names)

    def select(self, rows: Iterable[Row], choose: Choose) -> list[Row]:
        """The rows that count: those that satisfy `where`, at most `rows_max` of them at random."""
        matching = [row for row in rows if all(each.holds(row) for each in self.where)]
        if len(matching) <= self.rows_max:
            return matching
        return [matching[index] for index in choose(len(matching), self.rows_max)]

    def execute(self, rows: Iterable[Row], choose: Choose) -> npt.NDArray[np.int64]:
        """The client's vector, shape (slots,). Without matching rows it is zero, never shorter."""
        vector = np.zeros(self.slots, dtype=np.int64)
        for row in self.select(rows, choose):
            for _, slot, value in self.terms(row):
                vector[slot] += value
        return vector

    def terms(self, row: Row) -> Iterator[tuple[Block, int, int]]:
        """What one row that counts adds: (block, slot, value), one per measure at most."""
        group = self._group_of(row)
        if group is None:
            return
        for index, measure in enumerate(self.measures):
            place = self._add(measure, row)
            if place is not None:
                block = self.block(index, group)
                yield block, block.start + place[0], place[1]

    def _group_of(self, row: Row) -> int | None:
        if self.group is None:
            return 0
        value = row.get(self.group.column)
        return self._group_index.get(value) if isinstance(value, str) else None

    def _add(self, measure: Measure, row: Row) -> tuple[int, int] | None:
        """Offset inside the block and the value one row adds, or None if it adds nothing."""
        match measure:
            case Count(column=None):
                return 0, measure.scale
            case Count():
                column = cast("str", measure.column)
                return (0, measure.scale) if self._is_value(column, row.get(column)) else None
            case Sum():
                number = floor(row.get(measure.column))
                if number is None:
                    return None
                return 0, measure.scale * (_clamp(number, measure.lo, measure.hi) - measure.centre)
            case Histogram():
                number = floor(row.get(measure.column))
                if number is None:
                    return None
                offset = _clamp(number, measure.lo, measure.hi) - measure.lo
                return min(measure.bins - 1, offset // measure.step), measure.scale

    def _is_value(self, column: str, value: object) -> bool:
        if isinstance(value, str):
            return column not in self._numbers
        return floor(value) is not None

    @cached_property
    def _group_index(self) -> dict[str, int]:
        return {value: index for index, value in enumerate(self.group.values if self.group else ())}

    @cached_property
    def _numbers(self) -> frozenset[str]:
        measured = {each.column for each in self.measures if not isinstance(each, Count)}
        return frozenset(measured | {w.column for w in self.where if isinstance(w.value, int)})


def _clamp(value: int, lo: int, hi: int) -> int:
    return min(max(value, lo), hi)
