"""A question in SQL becomes a plan (docs/protocol.md section 15).

`grammar` reads the text; here names are looked up in the registry, measures are shared and scaled,
and the least word width is found.

Leaves out: how much noise a round needs (`dandelion.privacy`), and everything a second event, an
expression or a dyadic tree would need.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

from dandelion.encoding import Json, ceil_sqrt
from dandelion.errors import RuleError, WireError
from dandelion.params import INTEGER_END, NOISE_TAIL, SLOTS_MAX, WIDTHS
from dandelion.queries.grammar import Condition, Item, Question, SqlRefused, Word, read
from dandelion.queries.measures import Count, Group, Histogram, Measure, Output, Sum, Where
from dandelion.queries.parser import ROWS_MAX_MAX
from dandelion.queries.plan import Plan
from dandelion.queries.schema import CategoryColumn, EventSchema, NumberColumn, Registry

__all__ = ["Compiled", "Expiry", "SqlRefused", "compile_query", "least_width"]

# Sums of a set that disagrees with its keys are uniformly random words. All of them look plausible
# with probability at most 2^-40.
IMPLAUSIBLE_BITS: Final = 40

_LISTED: Final = 20


@dataclass(frozen=True)
class Expiry:
    """The first day (UTC) on which a question may not be asked any more, and because of what.

    `what` is such as `event visit`; `line` and `column` are its place in the SQL, from 1.
    """

    day: date
    what: str
    line: int
    column: int

    def refusal(self) -> SqlRefused:
        """The refusal of a question from that day on."""
        return SqlRefused(
            self.line,
            self.column,
            f"{self.what} expires on {self.day}; write a later day into the registry once it "
            "is reviewed, and declare the question anew",
        )


@dataclass(frozen=True)
class Compiled:
    """A compiled query: the plan, and what a descriptor needs to know of it."""

    parsed: Plan
    expiry: "Expiry | None" = None

    @cached_property
    def plan(self) -> dict[str, Json]:
        """The plan as an object, section 15.1."""
        return self.parsed.to_object()

    @cached_property
    def plan_bytes(self) -> bytes:
        """Canonical plan bytes, section 3.3."""
        return self.parsed.encode()

    @property
    def slots(self) -> int:
        """Words in the vector."""
        return self.parsed.slots

    @property
    def linf(self) -> int:
        """Bound of each value."""
        return self.parsed.linf

    @property
    def l2sq(self) -> int:
        """Bound of the sum of squares; the noise follows from it."""
        return self.parsed.l2sq

    def width(self, cohort_max: int, noise_var: int, m: int) -> int:
        """The least word width, in bits, for this query with m helpers; see `least_width`."""
        return least_width(self.slots, self.linf, cohort_max, noise_var, m)


def least_width(slots: int, linf: int, cohort_max: int, noise_var: int, m: int) -> int:
    """The least width of section 3.1 in which sums neither overflow nor hide damage.

    Sums fit if `cohort_max * linf + 12 * ceil(sqrt(m * noise_var)) + 1 <= 2^(width-1)` (3.2). If
    set and sum disagree every slot is uniformly random; all of them fall into the plausible range
    of section 8 with probability `(range / 2^width)^slots`, which must be at most 2^-40.

    Raises:
        RuleError: `overflow` if not even 64 bits do.
    """
    reach = cohort_max * linf + NOISE_TAIL * ceil_sqrt(m * noise_var)
    for width in WIDTHS:
        fits = reach + 1 <= 1 << (width - 1)
        if fits and slots * (width - math.log2(2 * reach + 1)) >= IMPLAUSIBLE_BITS:
            return width
    raise RuleError(
        "overflow", "no word width fits: lower rows_max, cohort_max or a column's range"
    )


def compile_query(
    sql: str,
    registry: Registry,
    *,
    name: str,
    epsilon: str,
    delta: str,
    rows_max: int | None = None,
    today: date | None = None,
) -> Compiled:
    """Compiles a question about one declared event.

    One noise variance serves every slot, so every measure is scaled to have the same share of the
    privacy budget: one row moves each of them by about the same integer A. A is the half-range of
    the widest column that is summed, in that column's own unit, and 1 without sums. (A larger A
    would buy next to nothing, because the noise grows with it, and would cost word width.) A count
    adds A; a sum of half-range h is multiplied by the integer nearest to A / h. Sums are taken
    from the middle of their range, which halves what a row can add; the count of the same column,
    which undoes that, is shared by all outputs that need it.

    Args:
        sql: the question, at most 8,192 characters.
        name: the query's name.
        epsilon, delta: decimal numbers: what one release may cost one client.
        rows_max: rows of one client that count; None for the event's `rows_max_default`.
        today: the day (UTC) on which it is asked; without it nothing has expired.

    Raises:
        SqlRefused: `sql_refused`, with the place in the text.
        RuleError: `sql_refused` for the other arguments.
    """
    if rows_max is not None and not 1 <= rows_max <= ROWS_MAX_MAX:
        raise RuleError("sql_refused", f"rows_max must be between 1 and {ROWS_MAX_MAX}")
    compiler = _Compiler(read(sql), registry)
    plan = compiler.plan(sql, name, epsilon, delta, rows_max)
    expiry = compiler.expiry
    if expiry is not None and today is not None and expiry.day <= today:
        raise expiry.refusal()
    try:
        return Compiled(Plan.parse(plan.encode()), expiry)
    except WireError as error:
        raise RuleError("sql_refused", error.detail) from None


class _Compiler:
    """Looks the names of one question up and lays its measures out."""

    def __init__(self, question: Question, registry: Registry) -> None:
        self._question = question
        event = registry.events.get(question.event.text)
        if event is None:
            question.event.refuse(f"no such event; declared: {_listing(registry.events)}")
        self._event: EventSchema = event
        self._measures: list[Measure] = []
        self._amplitude = 1
        self.expiry: Expiry | None = None
        self._note_expiry(event.expires, "event", question.event)

    def plan(self, sql: str, name: str, epsilon: str, delta: str, rows_max: int | None) -> Plan:
        group = self._group()
        aggregates = self._aggregates(group)
        halves = [
            _half(self._number(item.column))
            for item in aggregates
            if item.function in ("SUM", "AVG") and item.column is not None
        ]
        self._amplitude = max(halves, default=1)
        outputs = [self._output(item) for item in aggregates]
        plan = Plan(
            query=name,
            sql=sql,
            event=self._question.event.text,
            epsilon=epsilon,
            delta=delta,
            rows_max=self._event.rows_max_default if rows_max is None else rows_max,
            measures=tuple(self._measures),
            outputs=tuple(outputs),
            group=group,
            where=tuple(self._where(each) for each in self._question.conditions),
        )
        if plan.slots > SLOTS_MAX:
            aggregates[0].at.refuse(
                f"needs {plan.slots} slots of at most {SLOTS_MAX}; ask for fewer bins or groups"
            )
        try:
            plan.encode()
        except WireError as error:
            (self._question.group or aggregates[0].at).refuse(
                f"makes a plan that cannot be sent ({error.detail}); declare fewer or shorter "
                "values, or write a shorter question"
            )
        if plan.l2sq >= INTEGER_END:
            aggregates[0].at.refuse(
                "one client could move the sums too far; lower rows_max or declare a smaller range"
            )
        return plan

    def _group(self) -> Group | None:
        word = self._question.group
        if word is None:
            return None
        column = self._column(word)
        if not isinstance(column, CategoryColumn):
            word.refuse("grouping by a number is not supported; use HISTOGRAM(column, bins)")
        return Group(word.text, column.values)

    def _aggregates(self, group: Group | None) -> list[Item]:
        seen: set[str] = set()
        aggregates = []
        for item in self._question.items:
            if item.name in seen:
                item.at.refuse("asked for twice; name it once")
            seen.add(item.name)
            if item.function is None:
                self._column(item.at)
                if group is None or item.at.text != group.column:
                    item.at.refuse(
                        "a plain column must be the group column; add GROUP BY with this column, "
                        "or use COUNT, SUM, AVG or HISTOGRAM"
                    )
            else:
                aggregates.append(item)
        if not aggregates:
            self._question.items[0].at.refuse(
                "nothing is counted; add COUNT(*), SUM, AVG or HISTOGRAM"
            )
        for item in aggregates:
            if item.function == "HISTOGRAM" and len(aggregates) > 1:
                item.at.refuse(
                    "HISTOGRAM beside another aggregate is not supported; ask a question for each"
                )
        return aggregates

    def _output(self, item: Item) -> Output:
        match item.function, item.column:
            case "COUNT", None:
                return Output("count", item.name, self._measure(Count(self._amplitude)))
            case "COUNT", Word() as column:
                self._column(column)
                return Output("count", item.name, self._count(column))
            case "HISTOGRAM", Word() as column:
                return Output("histogram", item.name, self._measure(self._histogram(item, column)))
            case "SUM" | "AVG" as function, Word() as column:
                summed = self._measure(self._sum(column))
                op = "sum" if function == "SUM" else "avg"
                return Output(
                    "sum" if op == "sum" else "avg", item.name, summed, self._count(column)
                )
        raise AssertionError("the grammar has no other item")

    def _measure(self, measure: Measure) -> int:
        """The index of a measure, which is added unless an output has it already."""
        if measure not in self._measures:
            self._measures.append(measure)
        return self._measures.index(measure)

    def _count(self, column: Word) -> int:
        return self._measure(Count(self._amplitude, column.text))

    def _sum(self, word: Word) -> Sum:
        column = self._number(word)
        half = _half(column)
        # Rounded half up, in integers; never 0 because the amplitude is the largest half-range.
        scale = (2 * self._amplitude + half) // (2 * half)
        return Sum(scale, word.text, column.lo, column.hi, (column.lo + column.hi) // 2)

    def _histogram(self, item: Item, word: Word) -> Histogram:
        column = self._number(word)
        span = column.hi - column.lo
        if item.bins < 1 or span % item.bins:
            (item.bins_at or item.at).refuse(
                f"the number of bins must divide the range of {span}; "
                f"write for example {_listing(map(str, _near_divisors(span, item.bins)))}"
            )
        return Histogram(1, word.text, column.lo, column.hi, item.bins)

    def _where(self, condition: Condition) -> Where:
        column = self._column(condition.column)
        if isinstance(column, CategoryColumn):
            if not isinstance(condition.value, str):
                condition.value_at.refuse(
                    "a category is not compared with a number; write a string in single quotes"
                )
            if condition.test not in ("eq", "ne"):
                condition.test_at.refuse("a category has no order; use = or <>")
            if condition.value not in column.values:
                condition.value_at.refuse(f"no such value; declared: {_listing(column.values)}")
        elif isinstance(condition.value, str):
            condition.value_at.refuse(
                "a number is not compared with a string; write an integer without quotes"
            )
        return Where(condition.column.text, condition.test, condition.value)

    def _column(self, word: Word) -> CategoryColumn | NumberColumn:
        column = self._event.columns.get(word.text)
        if column is None:
            word.refuse(f"no such column; declared: {_listing(self._event.columns)}")
        self._note_expiry(column.expires, "column", word)
        return column

    def _note_expiry(self, day: date | None, kind: str, word: Word) -> None:
        """Keeps the earliest day; of one day, what comes first in the search for names."""
        if day is not None and (self.expiry is None or day < self.expiry.day):
            self.expiry = Expiry(day, f"{kind} {word.text}", word.line, word.column)

    def _number(self, word: Word) -> NumberColumn:
        column = self._column(word)
        if not isinstance(column, NumberColumn):
            word.refuse("a category cannot be summed; use GROUP BY with it and COUNT(*)")
        return column


def _half(column: NumberColumn) -> int:
    """The largest distance of a clamped value from the middle of its range, rounded up."""
    return (column.hi - column.lo + 1) // 2


def _near_divisors(span: int, bins: int) -> list[int]:
    """Up to four divisors of `span`, those nearest to `bins`, ascending."""
    reach = range(1, min(span, SLOTS_MAX, max(4 * abs(bins), 1_000)) + 1)
    divisors = [each for each in reach if span % each == 0]
    return sorted(sorted(divisors, key=lambda each: abs(each - bins))[:4])


def _listing(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more
