"""What a new version of a registry does to people and to questions."""

from copy import deepcopy
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dandelion.queries.diff import Change, diff
from dandelion.queries.schema import Registry
from tests.library.queries.strategies import registry_objects

EVENT: dict[str, Any] = {
    "description": "One visit",
    "owner": "web@example.com",
    "expires": "2027-06-01",
    "review": "https://example.com/42",
    "rows_max_default": 2,
    "columns": {
        "country": {"kind": "category", "values": ["DE", "FR"]},
        "load": {"kind": "number", "lo": 0, "hi": 100, "unit": "ms"},
    },
}
OLD: dict[str, Any] = {"events": {"visit": EVENT}}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The registry with one value set, or removed where the value is None."""
    document = deepcopy(OLD)
    at: Any = document["events"]
    *parts, last = path.split(".")
    for part in parts:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return document


def between(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    """The changes from one to the other."""
    return diff(Registry.from_object(old), Registry.from_object(new))


WEAKER = [
    ("visit.columns.load.hi", 101, True, True),
    ("visit.columns.load.lo", -1, True, True),
    ("visit.columns.load.unit", "us", True, True),
    ("visit.columns.load.unit", None, True, True),
    ("visit.columns.load", {"kind": "category", "values": ["A"]}, True, True),
    ("visit.columns.country.values", ["DE", "FR", "IT"], True, False),
    ("visit.columns.more", {"kind": "number", "lo": 0, "hi": 1}, True, False),
    ("more", {"columns": {"c": {"kind": "number", "lo": 0, "hi": 1}}}, True, False),
    ("visit.rows_max_default", 3, True, True),
    ("visit.expires", "2027-06-02", True, False),
    ("visit.expires", None, True, False),
    ("visit.review", None, True, False),
    ("visit.owner", None, True, False),
    ("visit.description", None, True, False),
]
OTHER = [
    ("visit.columns.load.hi", 99, False, True),
    ("visit.columns.load.lo", 1, False, True),
    ("visit.columns.country.values", ["DE"], False, True),
    ("visit.columns.country", None, False, True),
    ("visit.columns.country.expires", "2027-01-01", False, True),
    ("visit.rows_max_default", 1, False, True),
    ("visit.expires", "2027-05-31", False, True),
    ("visit.columns.country.values", ["FR", "DE"], False, False),
    ("visit.columns.country.description", "Where", False, False),
    ("visit.review", "https://example.com/43", False, False),
    ("visit.owner", "others@example.com", False, False),
    ("visit.description", "A visit", False, False),
]


@pytest.mark.parametrize("path, value, weakens, breaks", WEAKER + OTHER)
def test_a_change_is_named_for_what_it_does(
    path: str, value: Any, weakens: bool, breaks: bool
) -> None:
    """One change, with the path of what changed, and its effect on people and on questions."""
    [change] = between(OLD, changed(path, value))
    assert (change.weakens, change.breaks) == (weakens, breaks)
    assert change.name.startswith(f"events.{path}")
    assert change.removed == (value is None)


def test_a_removed_event_breaks_questions() -> None:
    """It is named by its place in the old registry."""
    more = changed("more", {"columns": {"c": {"kind": "number", "lo": 0, "hi": 1}}})
    [change] = between(more, OLD)
    assert (change.weakens, change.breaks, change.removed) == (False, True, True)
    assert change.name == "events.more"


def test_what_weakens_privacy_comes_first() -> None:
    """Of many changes a reader sees those first."""
    new = changed("visit.columns.load.hi", 99)
    new["events"]["visit"]["review"] = "https://example.com/43"
    del new["events"]["visit"]["expires"]
    new["events"]["visit"]["columns"]["country"]["values"] = ["DE", "AT"]
    marks = [(it.weakens, it.breaks) for it in between(OLD, new)]
    assert marks == [(True, False), (True, False), (False, True), (False, True), (False, False)]


@settings(max_examples=30)
@given(registry_objects())
def test_nothing_changes_between_a_registry_and_itself(document: dict[str, Any]) -> None:
    """Also when it was written down and read in between."""
    registry = Registry.from_object(document)
    assert diff(registry, Registry.from_object(registry.to_object())) == ()


def later(day: date) -> date:
    """The day after."""
    return day + timedelta(days=1)


@st.composite
def weakenings(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A registry, and the same with one thing weaker."""
    old = draw(registry_objects())
    new = deepcopy(old)
    event = new["events"][draw(st.sampled_from(sorted(new["events"])))]
    column = event["columns"][draw(st.sampled_from(sorted(event["columns"])))]
    kind = draw(st.sampled_from(("wider", "event", "column", "rows", "expiry", "accounts")))
    entry = draw(st.sampled_from((event, column)))
    if kind == "wider" and column["kind"] == "number":
        end, by = draw(st.sampled_from((("lo", -1), ("hi", 1))))
        column[end] += by * draw(st.integers(1, 100))
    elif kind == "wider":
        column["values"] = [*column["values"], "".join(column["values"]) + "+"]
    elif kind == "rows" and event.get("rows_max_default", 1) < 65_535:
        event["rows_max_default"] = event.get("rows_max_default", 1) + 1
    elif kind == "expiry" and "expires" in entry:
        day = later(date.fromisoformat(entry.pop("expires")))
        entry |= draw(st.sampled_from(({}, {"expires": day.isoformat()})))
    elif kind == "accounts" and {"review", "owner"} & entry.keys():
        del entry[draw(st.sampled_from(sorted({"review", "owner"} & entry.keys())))]
    elif kind == "event":
        new["events"]["z_new"] = {"columns": {"c": {"kind": "number", "lo": 0, "hi": 1}}}
    else:
        event["columns"]["z_new"] = {"kind": "category", "values": ["A"]}
    return old, new


@settings(max_examples=100)
@given(weakenings())
def test_no_weakening_goes_unnamed(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Whatever is weakened, one change says so; the way back never weakens anything."""
    assert any(change.weakens for change in between(*pair))
    assert not any(change.weakens for change in between(*reversed(pair)))
