"""What is wrong with a registry, and what is allowed but unwise (docs/registry.md).

Faults are what the reader refuses. Warnings speak about what it takes: nobody answers for an
event, it has expired, a domain is so wide that its groups are noise or its reports large, bounds
are so wide that a sum is noise. The last two depend on how many clients answer and at what price,
so they are judged for an `Audience`, by compiling the plainest question about the column.

Leaves out: how much noise a promise needs (`dandelion.privacy`); an audience brings it along.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from dandelion.errors import RuleError
from dandelion.params import BEACON_BYTES_MAX, REPORT_HEADER_BYTES
from dandelion.queries.decode import COUNT_ERRORS_MIN
from dandelion.queries.expect import Expected, expected
from dandelion.queries.registry_source import Fault, PathPart, SchemaRefused, Source, read_source
from dandelion.queries.schema import CategoryColumn, EventSchema, NumberColumn, Registry
from dandelion.queries.sql import Compiled, SqlRefused, compile_query

_Path = tuple[PathPart, ...]
_Said = tuple[_Path, str, str]


@dataclass(frozen=True)
class Audience:
    """For whom a registry is judged.

    Attributes:
        clients: that answer one round, with one row each.
        helpers: that add noise.
        noise_var: the variance that one helper's noise needs, by l2sq; raises ValueError if none
            will do.
        words: the promise, such as `epsilon 1, delta 1e-8`.
    """

    clients: int
    helpers: int
    noise_var: Callable[[int], int]
    words: str


@dataclass(frozen=True)
class Finding:
    """One fault or warning. `rule` is a short name that stays the same."""

    severity: Literal["error", "warning"]
    rule: str
    path: str
    message: str
    line: int
    column: int

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}: {self.severity}: "
        return f"{place}{f'{self.path}: ' if self.path else ''}{self.message} [{self.rule}]"

    def to_object(self) -> dict[str, Any]:
        """Every field, fit for JSON."""
        return dict(vars(self))


def lint(text: str, audience: Audience, today: date) -> tuple[Finding, ...]:
    """Faults of a registry, or its warnings if it has none, in the order of the text.

    Args:
        text: YAML.
        audience: for whom domains and bounds are judged.
        today: the day (UTC) on which expiry is judged.
    """
    try:
        source = read_source(text)
        registry = Registry.from_source(source)
    except SchemaRefused as refused:
        return tuple(_fault(fault) for fault in refused.faults)
    found = [_warning(source, *said) for said in _warnings(registry, audience, today)]
    return tuple(sorted(found, key=lambda each: (each.line, each.column)))


def _fault(fault: Fault) -> Finding:
    line, column = max(1, fault.line), max(1, fault.column)
    return Finding("error", "schema", fault.path, fault.reason, line, column)


def _warning(source: Source, path: _Path, rule: str, message: str) -> Finding:
    name = ".".join(map(str, path))
    return Finding("warning", rule, name, message, *source.place(path, key=True))


def _warnings(registry: Registry, audience: Audience, today: date) -> Iterator[_Said]:
    for name, event in registry.events.items():
        path = ("events", name)
        yield from _accounts(path, event, today)
        for column_name, column in event.columns.items():
            at = (*path, "columns", column_name)
            if not column.description:
                yield at, "no-description", "write a description: what is recorded, in plain words"
            if column.expires is not None and column.expires <= today:
                yield (*at, "expires"), "expired", _EXPIRED.format(column.expires, "column")
            question = _Question(registry, name, column_name, audience)
            if isinstance(column, CategoryColumn):
                yield from _domain(at, column, question)
            else:
                yield from _bounds(at, column, question)


_EXPIRED: Final = (
    "has expired on {}, questions about it are refused; review it and write a later day, or remove "
    "the {}"
)


def _accounts(path: _Path, event: EventSchema, today: date) -> Iterator[_Said]:
    if not event.description:
        yield path, "no-description", "write a description: what is recorded, in plain words"
    if not event.owner:
        yield path, "no-owner", "write an owner: who answers for it"
    if not event.review:
        yield path, "no-review", "write a review: the https:// link of its privacy review"
    if event.expires is None:
        yield path, "no-expiry", "write expires: the day from which it may not be asked any more"
    elif event.expires <= today:
        yield (*path, "expires"), "expired", _EXPIRED.format(event.expires, "event")


@dataclass(frozen=True)
class _Question:
    """The plainest question about a column, and what its answer is worth."""

    registry: Registry
    event: str
    column: str
    audience: Audience

    def compile(self, select: str, group: str = "") -> Compiled:
        by = f" GROUP BY {group}" if group else ""
        sql = f'SELECT {select} FROM "{self.event}"{by}'  # noqa: S608 - our own language
        return compile_query(sql, self.registry, name="lint", epsilon="1", delta="1e-8")

    def expected(self, compiled: Compiled) -> tuple[Expected, ...]:
        variance = self.audience.helpers * self.audience.noise_var(compiled.l2sq)
        return expected(compiled.parsed, variance, self.audience.clients)

    def report_bytes(self, compiled: Compiled) -> int:
        variance = self.audience.noise_var(compiled.l2sq)
        width = compiled.width(self.audience.clients, variance, self.audience.helpers)
        return REPORT_HEADER_BYTES + compiled.slots * width // 8

    @property
    def among(self) -> str:
        return f"among {self.audience.clients:,} clients at {self.audience.words}"


def _domain(path: _Path, column: CategoryColumn, question: _Question) -> Iterator[_Said]:
    """Too many values for a report that is sent while the page is left, or for the clients."""
    try:
        compiled = question.compile("COUNT(*)", f'"{question.column}"')
        size = question.report_bytes(compiled)
        [count] = question.expected(compiled)
    except (RuleError, ValueError) as error:
        yield path, "wide-domain", f"cannot be grouped by: {_reason(error)}"
        return
    at, many = (*path, "values"), len(column.values)
    if size > BEACON_BYTES_MAX:
        yield (
            at,
            "wide-domain",
            f"{many:,} values make a report of {size:,} bytes, more than the {BEACON_BYTES_MAX:,} "
            "that a page can send while it is left; declare fewer values",
        )
    deviation = count.std_error
    if many > 1 and deviation is not None and count.rows < COUNT_ERRORS_MIN * deviation:
        yield (
            at,
            "wide-domain",
            f"{many:,} values: {question.among} a group holds {count.rows:,.3g} rows on average, "
            f"and a count has a standard error of {deviation:,.3g}; declare fewer values, one of "
            "them for the rest",
        )


def _bounds(path: _Path, column: NumberColumn, question: _Question) -> Iterator[_Said]:
    """Bounds of which a sum would be noise.

    What values usually are is not declared. Of a range that spans many orders of magnitude most
    values use little, so the geometric middle between one unit and the whole range stands for them.
    """
    name = f'"{question.column}"'
    try:
        total, average = question.expected(question.compile(f"SUM({name}), AVG({name})"))
    except (RuleError, ValueError) as error:
        yield path, "wide-bounds", f"cannot be summed: {_reason(error)}"
        return
    usual = float(column.hi - column.lo) ** 0.5
    if average.withheld:
        yield (
            path,
            "wide-bounds",
            f"too few clients for an average: {question.among} the count is not distinct from zero",
        )
    elif average.std_error is not None and average.std_error > usual:
        yield (
            path,
            "wide-bounds",
            f"{column.lo:,} to {column.hi:,} is so wide that a sum is noise: {question.among} SUM "
            f"has a standard error of {total.std_error:,.3g} and AVG of {average.std_error:,.3g}, "
            f"more than {usual:,.3g}, the geometric middle of the range; declare bounds that most "
            "values keep to, others are clamped",
        )


def _reason(error: RuleError | ValueError) -> str:
    """Without the place in a question that nobody wrote."""
    if isinstance(error, SqlRefused):
        return error.reason
    return error.detail if isinstance(error, RuleError) else str(error)
