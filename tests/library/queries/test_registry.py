"""What a registry says beside names and kinds: who answers, until when, how many rows."""

import json
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dandelion.errors import RuleError
from dandelion.queries.registry_source import SchemaRefused, read_source
from dandelion.queries.schema import Registry, json_schema
from dandelion.queries.sql import SqlRefused, compile_query
from tests.library.queries.strategies import registry_objects

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs" / "registry.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

FULL = """
events:
  visit:
    description: One visit
    owner: web-performance@example.com
    expires: 2027-06-01
    review: https://example.com/reviews/42
    unit: client
    rows_max_default: 3
    columns:
      country: {kind: category, values: [DE, FR], expires: "2027-03-01"}
      load_ms: {kind: number, lo: 0, hi: 10000, unit: ms}
"""


def asked(sql: str, today: str | None = None, registry: str = FULL, **more: Any) -> Any:
    """Compiles a question about the registry above."""
    day = None if today is None else date.fromisoformat(today)
    return compile_query(
        sql,
        Registry.from_yaml(registry),
        name="q",
        epsilon="1",
        delta="1e-8",
        today=day,
        **more,
    )


def test_an_event_says_who_answers_and_until_when() -> None:
    """Days come out as days, written with quotes or without."""
    event = Registry.from_yaml(FULL).events["visit"]
    assert event.owner == "web-performance@example.com"
    assert event.expires == date(2027, 6, 1)
    assert event.review == "https://example.com/reviews/42"
    assert event.columns["country"].expires == date(2027, 3, 1)
    assert event.columns["load_ms"].expires is None


@pytest.mark.parametrize(
    "old, new, place, reason",
    [
        ("2027-06-01", "2027-02-30", (6, 14), "quote it if it is text"),
        ("2027-06-01", '"2027-02-30"', (6, 14), "a day of the calendar such as"),
        ("2027-06-01", "2027-06-01T10:00:00", (6, 14), "a day of the calendar such as"),
        ("2027-06-01", "20270601", (6, 14), "a day of the calendar such as"),
        (" 2027-06-01", "", (6, 13), "or leave it out"),
        ("https://", "http://", (7, 13), "begins with https://"),
        ("https://example.com/reviews/42", "[a]", (7, 13), "begins with https://"),
        ("unit: client", "unit: household", (8, 11), "write unit: client or leave it out"),
        ("unit: client", "unit: [client]", (8, 11), "write unit: client or leave it out"),
        ("default: 3", "default: 0", (9, 23), "greater than or equal to 1"),
        ("default: 3", "default: 65536", (9, 23), "less than or equal to 65535"),
        ("default: 3", "default: 2.5", (9, 23), "a whole number"),
        ("default: 3", "default: true", (9, 23), "a whole number"),
        ("owner:", "owners:", (5, 5), "known here: columns, description, expires, owner,"),
        ("lo: 0, ", "lo: 0, values: [A], ", (12, 38), "known here: description, expires, hi, kind"),
        ("kind: number, ", "", (12, 16), "write kind: category or kind: number"),
    ],
)
def test_a_fault_has_its_place_and_what_to_write_instead(
    old: str, new: str, place: tuple[int, int], reason: str
) -> None:
    """Line and column are those of the value, or of the key that is not known."""
    with pytest.raises(SchemaRefused) as caught:
        Registry.from_yaml(FULL.replace(old, new, 1))
    [fault] = caught.value.faults
    assert (fault.line, fault.column) == place
    assert reason in fault.reason


def test_every_fault_is_told_not_only_the_first() -> None:
    """Two wrong values, two places. A column called number is not taken for a kind."""
    with pytest.raises(SchemaRefused) as caught:
        Registry.from_yaml(
            "events:\n  number:\n    columns:\n      number: {kind: number, lo: x, hi: y}\n"
        )
    assert [(fault.line, fault.column, fault.path) for fault in caught.value.faults] == [
        (4, 34, "events.number.columns.number.lo"),
        (4, 41, "events.number.columns.number.hi"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "events: 2027-02-30",
        "events: !!int ''",
        "events: !!int abc",
        "events: 0b_",
        "events: !!timestamp soon",
        "events: !!bool maybe",
        f"events: {'9' * 5_000}",
        f"events: !!float {'1:' * 5_000}1.0",
        "events: 2027-01-01T00:00:00+99:00",
        "events: !!map [1]",
        "events: !!set [1]",
        "events: \x00",
        "events: &a {visit: *a}",
        "? &a [*a]\n: 1",
        "<<: {events: {}}",
        "%YAML 9.9\n---\nevents: 1",
        "[" * 600,
    ],
    ids=lambda text: text[:30],
)
def test_scalars_that_are_not_what_they_look_like_are_refused(text: str) -> None:
    """An error of the YAML library is a refusal with a place, whatever it is inside."""
    with pytest.raises(RuleError) as caught:
        Registry.from_yaml(text)
    assert caught.value.token == "schema_refused"


@given(st.text(alphabet=" \n:-[]{}&*!?|>'\"#%@`,abeintsv0129.~<=\x85\u2028\x00", max_size=60))
def test_no_text_ends_in_anything_but_a_refusal(text: str) -> None:
    """Fuzz: YAML's own punctuation and the beginnings of a registry."""
    for document in (text, f"events: {text}", f"events:\n  visit: {{columns: {text}}}"):
        with suppress(SchemaRefused):
            Registry.from_yaml(document)


@settings(max_examples=30)
@given(registry_objects())
def test_a_registry_survives_yaml_and_json(document: dict[str, Any]) -> None:
    """What is written down is what was declared."""
    registry = Registry.from_object(document)
    assert Registry.from_yaml(registry.to_yaml()) == registry
    assert Registry.from_object(json.loads(json.dumps(registry.to_object()))) == registry


@settings(max_examples=30)
@given(registry_objects())
def test_a_place_is_found_for_every_path(document: dict[str, Any]) -> None:
    """Each column's key stands at the place that is said."""
    text = Registry.from_object(document).to_yaml()
    source, lines = read_source(text), text.splitlines()
    for event, declared in document["events"].items():
        for column in declared["columns"]:
            line, at = source.place(("events", event, "columns", column), key=True)
            assert lines[line - 1][at - 1 :].startswith((column, f"'{column}'"))


def test_the_published_json_schema_is_the_code_s() -> None:
    """`dandelion registry schema > docs/registry.schema.json` writes it anew."""
    assert json.loads(COMMITTED.read_text()) == json_schema()


@settings(max_examples=30)
@given(registry_objects())
def test_the_json_schema_takes_what_the_reader_takes(document: dict[str, Any]) -> None:
    """An editor that has it does not complain of a good registry."""
    VALIDATOR.validate(Registry.from_object(document).to_object())


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "household"},
        {"expires": 3},
        {"expires": None},
        {"review": "http://x"},
        {"rows_max_default": 0},
        {"colour": "red"},
    ],
)
def test_the_json_schema_refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    """The control of the test before."""
    document: dict[str, Any] = {
        "events": {"e": {"columns": {"c": {"kind": "category", "values": ["A"]}}} | change}
    }
    with pytest.raises(RuleError):
        Registry.from_object(document)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "sql, today, column",
    [
        ("SELECT COUNT(*) FROM visit", "2027-06-01", 22),
        ("SELECT AVG(load_ms) FROM visit", "2028-01-01", 26),
        ("SELECT country, COUNT(*) FROM visit GROUP BY country", "2027-03-01", 46),
        ("SELECT COUNT(*) FROM visit WHERE country = 'DE'", "2027-03-01", 34),
    ],
)
def test_what_has_expired_is_not_asked(sql: str, today: str, column: int) -> None:
    """From the day itself on, with the place in the question."""
    with pytest.raises(SqlRefused) as caught:
        asked(sql, today)
    assert (caught.value.line, caught.value.column) == (1, column)
    assert "expires on 2027-0" in caught.value.reason
    assert "write a later day" in caught.value.reason


@pytest.mark.parametrize(
    "sql, today",
    [
        ("SELECT COUNT(*) FROM visit", "2027-05-31"),
        ("SELECT COUNT(*) FROM visit", "2027-03-01"),  # the expired column is not named
        ("SELECT country, COUNT(*) FROM visit GROUP BY country", "2027-02-28"),
        ("SELECT country, COUNT(*) FROM visit GROUP BY country", None),
    ],
)
def test_what_has_not_expired_is_asked(sql: str, today: str | None) -> None:
    """The day before, and columns that are not named do not matter. A plan knows no day."""
    assert asked(sql, today).plan_bytes == asked(sql).plan_bytes


def test_a_question_knows_its_earliest_day() -> None:
    """Who opens rounds later can refuse them in the same words."""
    compiled = asked("SELECT country, COUNT(*) FROM visit GROUP BY country")
    assert compiled.expiry.day == date(2027, 3, 1)
    assert compiled.expiry.refusal().column == 46
    assert asked("SELECT COUNT(*) FROM visit").expiry.day == date(2027, 6, 1)
    plain = "events: {e: {columns: {c: {kind: category, values: [A]}}}}"
    assert asked("SELECT COUNT(*) FROM e", registry=plain).expiry is None


def test_the_event_says_how_many_rows_count_unless_the_question_does() -> None:
    """`rows_max_default` goes into the plan and its bounds."""
    assert asked("SELECT COUNT(*) FROM visit").parsed.rows_max == 3
    assert asked("SELECT COUNT(*) FROM visit", rows_max=5).parsed.rows_max == 5
    assert asked("SELECT COUNT(*) FROM visit").l2sq == 9
