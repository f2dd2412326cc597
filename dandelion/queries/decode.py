"""Released sums become a table with error bars (docs/protocol.md section 15.4).

The noise of every slot has the same known variance, so each answer carries its standard error
(first order) and a 95 % interval: normal for counts and sums, Fieller's for averages, which are
ratios of two noisy sums (Fieller 1954, J. R. Stat. Soc. B 16). The intervals speak about the noise
alone: not about who took part, nor about values that were clamped.

Leaves out: unmasking (`dandelion.schemes`) and checking signatures (`dandelion.verify`).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dandelion.queries.measures import Histogram, Output, Row, Sum
from dandelion.queries.plan import Plan

# The 97.5 % point of the normal distribution.
Z95: Final = 1.959963984540054

# An average is shown if its count is at least this many standard errors (15.4).
COUNT_ERRORS_MIN: Final = 4


@dataclass(frozen=True)
class Cell:
    """One answer. Where `withheld` is true the four numbers are None and `reason` says why."""

    group: str | None
    name: str
    bin: tuple[int, int] | None
    estimate: float | None
    std_error: float | None
    ci_low: float | None
    ci_high: float | None
    withheld: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """All answers of one release: group by group, outputs in the order they were asked."""

    query: str
    group: str | None
    reports: int
    cells: tuple[Cell, ...]

    def to_rows(self) -> list[dict[str, object]]:
        """One flat object per cell, fit for JSON: every field of `Cell`, `bin` as `[low, high]`."""
        return [asdict(cell) | {"bin": list(cell.bin) if cell.bin else None} for cell in self.cells]

    def to_object(self) -> dict[str, object]:
        """The table as one object, fit for JSON."""
        return {
            "query": self.query,
            "group": self.group,
            "reports": self.reports,
            "cells": self.to_rows(),
        }


@dataclass(frozen=True)
class TrueCell:
    """The exact answer to one cell, None for the average of nothing.

    `value` is taken from clamped, rounded values, which is what a release estimates; `unclamped`
    from the values as recorded. Their difference is the bias of clamping.
    """

    group: str | None
    name: str
    bin: tuple[int, int] | None
    value: float | None
    unclamped: float | None


@dataclass(frozen=True)
class _Place:
    """Where one cell of the table comes from."""

    group: int
    output: Output
    slot: int
    count_slot: int | None
    bin: tuple[int, int] | None


def decode(
    plan: Plan, sums: npt.NDArray[np.int64] | Sequence[int], n: int, noise_var_total: int
) -> Table:
    """The table of a release.

    Args:
        plan: the plan of the descriptor.
        sums: released words, shape (slots,), signed; for several shards their sum.
        n: reports in it.
        noise_var_total: variance of the noise in each slot: m * noise_var, times the number of
            shards added up. With 0 the sums are read as exact.
    """
    if len(sums) != plan.slots:
        raise ValueError(f"{len(sums)} sums for a plan of {plan.slots} slots")
    words = [int(word) for word in sums]
    sigma = math.sqrt(noise_var_total)
    cells = tuple(_cell(plan, place, words, sigma) for place in _places(plan))
    return Table(plan.query, plan.group.column if plan.group else None, n, cells)


def truth(plan: Plan, clients: Iterable[Iterable[Row]]) -> tuple[TrueCell, ...]:
    """Exact answers over the rows of all clients, in the order of the cells of `decode`.

    Every matching row counts: `rows_max` and who took part are the caller's choice of rows.
    """
    rows = [row for client in clients for row in client]
    every = _Everything.of(plan, rows)
    return tuple(every.cell(place) for place in _places(plan))


def _places(plan: Plan) -> Iterator[_Place]:
    for group in range(len(plan.groups)):
        for output in plan.outputs:
            measure = plan.measures[output.measure]
            start = plan.block(output.measure, group).start
            counted = None if output.count is None else plan.block(output.count, group).start
            if isinstance(measure, Histogram):
                for index in range(measure.bins):
                    yield _Place(group, output, start + index, None, measure.edges(index))
            else:
                yield _Place(group, output, start, counted, None)


def _cell(plan: Plan, place: _Place, words: Sequence[int], sigma: float) -> Cell:
    measure = plan.measures[place.output.measure]
    value = words[place.slot] / measure.scale
    error = sigma / measure.scale
    labels = (plan.groups[place.group], place.output.name, place.bin)
    if place.count_slot is None or place.output.count is None or not isinstance(measure, Sum):
        return _normal(labels, value, error)
    scale = plan.measures[place.output.count].scale
    count = words[place.count_slot] / scale
    count_error = sigma / scale
    if place.output.op == "sum":
        return _normal(
            labels, value + measure.centre * count, math.hypot(error, measure.centre * count_error)
        )
    if count <= 0 or count < COUNT_ERRORS_MIN * count_error:
        return Cell(
            *labels, None, None, None, None, True, "too few: the count is not distinct from zero"
        )
    ratio = value / count
    low, high = fieller(value, error, count, count_error)
    return Cell(
        *labels,
        measure.centre + ratio,
        math.hypot(error, ratio * count_error) / count,
        measure.centre + low,
        measure.centre + high,
    )


def fieller(
    value: float, error: float, count: float, count_error: float, z: float = Z95
) -> tuple[float, float]:
    """Fieller's interval for a ratio of two independent normal quantities.

    It holds every t with `(value - t*count)^2 <= z^2 * (error^2 + t^2 * count_error^2)`: the roots
    of a quadratic, both real whenever `|count| > z * count_error`.

    Raises:
        ValueError: the count is not distinct from zero at this z, so there is no finite interval.
    """
    lead = count * count - z * z * count_error * count_error
    if lead <= 0:
        raise ValueError("the denominator is not distinct from zero")
    # The discriminant, written so that no two nearly equal terms are subtracted.
    root = z * math.sqrt(lead * error * error + value * value * count_error * count_error)
    middle = value * count
    return (middle - root) / lead, (middle + root) / lead


def _normal(
    labels: tuple[str | None, str, tuple[int, int] | None], value: float, error: float
) -> Cell:
    return Cell(*labels, value, error, value - Z95 * error, value + Z95 * error)


@dataclass(frozen=True)
class _Everything:
    """Exact sums over all rows: clamped per slot, and as recorded per slot of a sum."""

    plan: Plan
    clamped: list[int]
    recorded: dict[int, float]

    @classmethod
    def of(cls, plan: Plan, rows: Iterable[Row]) -> "_Everything":
        clamped = [0] * plan.slots
        recorded = {
            block.start: 0.0
            for block in plan.blocks
            if isinstance(plan.measures[block.measure], Sum)
        }
        for row in rows:
            if not all(each.holds(row) for each in plan.where):
                continue
            for block, slot, value in plan.terms(row):
                clamped[slot] += value
                measure = plan.measures[block.measure]
                if isinstance(measure, Sum):
                    recorded[slot] += float(row[measure.column])  # type: ignore[arg-type]
        return cls(plan, clamped, recorded)

    def cell(self, place: _Place) -> TrueCell:
        measure = self.plan.measures[place.output.measure]
        labels = (self.plan.groups[place.group], place.output.name, place.bin)
        total = self.clamped[place.slot] / measure.scale
        if place.count_slot is None or place.output.count is None or not isinstance(measure, Sum):
            return TrueCell(*labels, total, total)
        count = self.clamped[place.count_slot] // self.plan.measures[place.output.count].scale
        exact = total + measure.centre * count
        recorded = self.recorded[place.slot]
        if place.output.op == "sum":
            return TrueCell(*labels, exact, recorded)
        if count == 0:
            return TrueCell(*labels, None, None)
        return TrueCell(*labels, exact / count, recorded / count)
