"""Reads the object of a plan, refuses what is not in the text (docs/protocol.md section 15).

Leaves out: the canonical bytes around the object (`dandelion.encoding`) and what a plan does.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final, Literal, cast

from dandelion.errors import WireError
from dandelion.params import INTEGER_END, PLAN_CONDITIONS_MAX, PLAN_WORK_MAX, SLOTS_MAX
from dandelion.queries.measures import (
    TESTS,
    Count,
    Group,
    Histogram,
    Measure,
    Output,
    Sum,
    Where,
)
from dandelion.queries.plan import Plan

ROWS_MAX_MAX: Final = 65_535

_DECIMAL: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?(e-?[0-9]{1,2})?")


def parse_object(document: Mapping[str, object]) -> Plan:
    """The plan that an object states.

    Raises:
        WireError: `bad_plan`, with the path of what is wrong.
    """
    return _Parser(document).plan()


def decimal(text: str) -> Fraction | None:
    """The exact value of a decimal string such as `0.5` or `1e-8`; None if it is none."""
    return Fraction(text) if _DECIMAL.fullmatch(text) else None


class _Parser:
    """Reads the object of section 15.1; every fault is `bad_plan` with a path."""

    _REQUIRED = frozenset(
        ("delta", "epsilon", "event", "kind", "measures", "outputs", "query", "rows_max", "sql")
    )

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document

    def plan(self) -> Plan:
        source = self._fields(self._document, "plan", self._REQUIRED, frozenset(("group", "where")))
        if source["kind"] != "aggregate":
            raise _bad("kind", "unknown")
        measures = tuple(
            self._measure(item, f"measures.{index}")
            for index, item in enumerate(self._list(source["measures"], "measures"))
        )
        plan = Plan(
            query=self._text(source["query"], "query"),
            sql=self._text(source["sql"], "sql"),
            event=self._text(source["event"], "event"),
            epsilon=self._epsilon(source["epsilon"]),
            delta=self._delta(source["delta"]),
            rows_max=self._integer(source["rows_max"], "rows_max", 1, ROWS_MAX_MAX),
            measures=measures,
            outputs=tuple(
                self._output(item, f"outputs.{index}", measures)
                for index, item in enumerate(self._list(source["outputs"], "outputs"))
            ),
            group=self._group(source["group"]) if "group" in source else None,
            where=tuple(
                self._where(item, f"where.{index}")
                for index, item in enumerate(self._list(source.get("where", ()), "where", 0))
            ),
        )
        if plan.rows_max * len(measures) > PLAN_WORK_MAX:
            raise _bad("rows_max", "too many rows for so many measures")
        if len(plan.where) > PLAN_CONDITIONS_MAX:
            raise _bad("where", f"more than {PLAN_CONDITIONS_MAX} conditions")
        if plan.slots > SLOTS_MAX:
            raise _bad("measures", "more slots than allowed")
        if plan.linf >= INTEGER_END or plan.l2sq >= INTEGER_END:
            raise _bad("measures", "bounds of 2^53 or more")
        return plan

    def _measure(self, item: object, path: str) -> Measure:
        op = item.get("op") if isinstance(item, Mapping) else None
        bounds = frozenset(("column", "hi", "lo", "op", "scale"))
        match op:
            case "count":
                source = self._fields(
                    item, path, frozenset(("op", "scale")), frozenset(("column",))
                )
                column = (
                    self._text(source["column"], f"{path}.column") if "column" in source else None
                )
                return Count(self._scale(source, path), column)
            case "sum":
                source = self._fields(item, path, bounds | {"centre"})
                lo, hi = self._bounds(source, path)
                return Sum(
                    self._scale(source, path),
                    self._text(source["column"], f"{path}.column"),
                    lo,
                    hi,
                    self._integer(source["centre"], f"{path}.centre", lo, hi),
                )
            case "histogram":
                source = self._fields(item, path, bounds | {"bins"})
                lo, hi = self._bounds(source, path)
                bins = self._integer(source["bins"], f"{path}.bins", 1, SLOTS_MAX)
                if (hi - lo) % bins:
                    raise _bad(f"{path}.bins", "does not divide hi - lo")
                return Histogram(
                    self._scale(source, path),
                    self._text(source["column"], f"{path}.column"),
                    lo,
                    hi,
                    bins,
                )
            case _:
                raise _bad(f"{path}.op", "unknown")

    def _output(self, item: object, path: str, measures: tuple[Measure, ...]) -> Output:
        op = item.get("op") if isinstance(item, Mapping) else None
        fields = frozenset(("measure", "name", "op"))
        if op not in ("count", "sum", "avg", "histogram"):
            raise _bad(f"{path}.op", "unknown")
        op = cast("Literal['count', 'sum', 'avg', 'histogram']", op)
        paired = op in ("sum", "avg")
        source = self._fields(item, path, fields | {"count"} if paired else fields)
        name = self._text(source["name"], f"{path}.name")
        index = self._integer(source["measure"], f"{path}.measure", 0, len(measures) - 1)
        measure = measures[index]
        if measure.op != ("sum" if paired else op):
            raise _bad(f"{path}.measure", "of another kind than the output")
        if not paired:
            return Output(op, name, index)
        count = self._integer(source["count"], f"{path}.count", 0, len(measures) - 1)
        counted = measures[count]
        if not isinstance(counted, Count) or counted.column != measure.column:
            raise _bad(f"{path}.count", "not the count of the same column")
        return Output(op, name, index, count)

    def _group(self, item: object) -> Group:
        source = self._fields(item, "group", frozenset(("column", "values")))
        values = tuple(
            self._text(value, "group.values", 0)
            for value in self._list(source["values"], "group.values")
        )
        if len(set(values)) != len(values):
            raise _bad("group.values", "not distinct")
        return Group(self._text(source["column"], "group.column"), values)

    def _where(self, item: object, path: str) -> Where:
        source = self._fields(item, path, frozenset(("column", "test", "value")))
        test = source["test"]
        if test not in TESTS:
            raise _bad(f"{path}.test", "unknown")
        value = source["value"]
        if not isinstance(value, str | int):
            raise _bad(f"{path}.value", "neither a string nor an integer")
        if isinstance(value, str) and test not in ("eq", "ne"):
            raise _bad(f"{path}.test", "not for strings")
        return Where(self._text(source["column"], f"{path}.column"), test, value)

    def _epsilon(self, value: object) -> str:
        text = self._text(value, "epsilon")
        number = decimal(text)
        # Judged as the floating-point number, too, that accounting will make of it.
        if number is None or not 0 < float(number) < math.inf:
            raise _bad("epsilon", "not a decimal number above 0")
        return text

    def _delta(self, value: object) -> str:
        text = self._text(value, "delta")
        number = decimal(text)
        if number is None or not 0 < float(number) < 1:
            raise _bad("delta", "not a decimal number between 0 and 1")
        return text

    def _bounds(self, source: Mapping[str, object], path: str) -> tuple[int, int]:
        lo = self._integer(source["lo"], f"{path}.lo", 1 - INTEGER_END, INTEGER_END - 1)
        hi = self._integer(source["hi"], f"{path}.hi", 1 - INTEGER_END, INTEGER_END - 1)
        if lo >= hi:
            raise _bad(f"{path}.lo", "not below hi")
        return lo, hi

    def _scale(self, source: Mapping[str, object], path: str) -> int:
        return self._integer(source["scale"], f"{path}.scale", 1, INTEGER_END - 1)

    def _fields(
        self,
        item: object,
        path: str,
        required: frozenset[str],
        optional: frozenset[str] = frozenset(),
    ) -> Mapping[str, object]:
        if not isinstance(item, Mapping):
            raise _bad(path, "not an object")
        if not required <= item.keys():
            raise _bad(path, f"lacks {', '.join(sorted(required - item.keys()))}")
        if not item.keys() <= required | optional:
            raise _bad(path, "has a field that is not known")
        return item

    def _list(self, value: object, path: str, least: int = 1) -> Sequence[object]:
        if not isinstance(value, list | tuple) or len(value) < least:
            raise _bad(path, "not an array" if least == 0 else "not an array with an item")
        return value

    def _text(self, value: object, path: str, least: int = 1) -> str:
        if not isinstance(value, str) or len(value) < least:
            raise _bad(
                path, "not a string" if least == 0 else "not a string of a character or more"
            )
        return value

    def _integer(self, value: object, path: str, lo: int, hi: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lo <= value <= hi:
            raise _bad(path, "not an integer in its range")
        return value


def _bad(path: str, reason: str) -> WireError:
    return WireError("bad_plan", f"{path}: {reason}")
