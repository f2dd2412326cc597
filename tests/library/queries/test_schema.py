"""The registry of events: what a deployment may declare."""

import pytest

from dandelion.errors import RuleError
from dandelion.queries.schema import CategoryColumn, NumberColumn, Registry

GOOD = """
events:
  visit:
    description: One visit
    columns:
      country: {kind: category, values: [DE, FR]}
      load_ms: {kind: number, lo: 0, hi: 10000, unit: ms}
"""


def test_a_registry_is_read_from_yaml() -> None:
    """Columns come out typed, in the order declared."""
    registry = Registry.from_yaml(GOOD)
    columns = registry.events["visit"].columns
    assert columns["country"] == CategoryColumn(kind="category", values=("DE", "FR"))
    assert columns["load_ms"] == NumberColumn(kind="number", lo=0, hi=10_000, unit="ms")


def test_the_demonstration_declares_its_flights() -> None:
    """Package data: the 16 airlines and 3 airports of the data set."""
    columns = Registry.example().events["flight"].columns
    carrier, origin = columns["carrier"], columns["origin"]
    assert isinstance(carrier, CategoryColumn)
    assert isinstance(origin, CategoryColumn)
    assert len(carrier.values) == 16
    assert origin.values == ("EWR", "JFK", "LGA")
    assert columns["distance"] == NumberColumn(
        kind="number", lo=0, hi=5_000, unit="miles", description="Distance flown"
    )


@pytest.mark.parametrize(
    "old, new, path, reason",
    [
        ("kind: number", "kind: date", "events.visit.columns.load_ms", "kind"),
        ("lo: 0", "lo: 10000", "events.visit.columns.load_ms", "lo must be below hi"),
        ("lo: 0", "lo: 0.5", "events.visit.columns.load_ms.lo", "integer"),
        ("lo: 0, ", "", "events.visit.columns.load_ms.lo", "required"),
        ("hi: 10000", "hi: 9007199254740992", "events.visit.columns.load_ms.hi", "less than"),
        ("[DE, FR]", "[DE, DE]", "events.visit.columns.country.values", "twice"),
        ("[DE, FR]", "[]", "events.visit.columns.country.values", "at least 1"),
        ("[DE, FR]", "[DE, NO]", "events.visit.columns.country.values.1", "quote"),
        ("[DE, FR]", "[1, 2]", "events.visit.columns.country.values.0", "quote"),
        ("unit: ms", "unit: ms, colour: red", "events.visit.columns.load_ms.colour", "Extra"),
        ("load_ms:", "Load-MS:", "events.visit.columns.Load-MS", "pattern"),
        ("visit:", "2visit:", "events.2visit", "pattern"),
        ("events:", "tables:", "events", "required"),
    ],
)
def test_a_fault_is_named_by_path_and_reason(old: str, new: str, path: str, reason: str) -> None:
    """`schema_refused`, saying where and why."""
    with pytest.raises(RuleError) as caught:
        Registry.from_yaml(GOOD.replace(old, new))
    assert caught.value.token == "schema_refused"
    assert f"{path}: " in caught.value.detail
    assert reason in caught.value.detail


@pytest.mark.parametrize(
    "text, reason",
    [
        ("events: [", "line 1"),
        ("events: {a: 1, a: 2}", "line 1, column 16: a key is given twice"),
        ("- 1", "mapping"),
        ("", "mapping"),
        ("events: !!python/object:os.system {}", "line 1"),
        ("events: {? [a] : 1}", "line 1, column 12"),
    ],
)
def test_what_is_no_registry_at_all_is_refused(text: str, reason: str) -> None:
    """Broken YAML, repeated keys, other documents, and tags that would run code."""
    with pytest.raises(RuleError) as caught:
        Registry.from_yaml(text)
    assert caught.value.token == "schema_refused"
    assert reason in caught.value.detail


def test_an_alias_bomb_costs_nothing() -> None:
    """Nested aliases are shared, not copied, and end as an ordinary refusal."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    with pytest.raises(RuleError):
        Registry.from_yaml("\n".join(lines))
