"""What a registry should say and does not, and what would drown in noise."""

from datetime import date

import pytest

from dandelion.privacy.accounting import noise_var_for
from dandelion.queries.lint import Audience, Finding, lint

TODAY = date(2027, 1, 1)
GOOD = """
events:
  visit:
    description: One visit
    owner: web@example.com
    expires: 2027-06-01
    review: https://example.com/42
    columns:
      country: {kind: category, values: [DE, FR], description: Where}
      load: {kind: number, lo: 0, hi: 10000, description: How long}
"""


def found(text: str, clients: int = 10_000) -> tuple[Finding, ...]:
    """Judged for so many clients at epsilon 1 with two helpers."""
    audience = Audience(clients, 2, lambda l2sq: noise_var_for(l2sq, 1.0, 1e-8), "epsilon 1")
    return lint(text, audience, TODAY)


def test_a_good_registry_has_nothing_to_object_to() -> None:
    """The control of every test below."""
    assert found(GOOD) == ()


@pytest.mark.parametrize(
    "old, new, rule, place",
    [
        ("    description: One visit\n", "", "no-description", (3, 3)),
        ("    owner: web@example.com\n", "", "no-owner", (3, 3)),
        ("    expires: 2027-06-01\n", "", "no-expiry", (3, 3)),
        ("    review: https://example.com/42\n", "", "no-review", (3, 3)),
        (", description: Where", "", "no-description", (9, 7)),
        (", description: How long", "", "no-description", (10, 7)),
        ("2027-06-01", "2027-01-01", "expired", (6, 5)),
        ("description: Where", "description: Where, expires: 2026-12-31", "expired", (9, 71)),
        ("hi: 10000", "hi: 100000000", "wide-bounds", (10, 7)),
        ("hi: 10000", "hi: 2147483648", "wide-bounds", (10, 7)),
    ],
)
def test_a_warning_has_a_name_and_a_place(
    old: str, new: str, rule: str, place: tuple[int, int]
) -> None:
    """One cause, one warning, where the key is that it is about."""
    assert old in GOOD
    [warning] = found(GOOD.replace(old, new, 1))
    assert (warning.severity, warning.rule) == ("warning", rule)
    assert (warning.line, warning.column) == place


def test_wide_bounds_say_the_expected_error() -> None:
    """How far a sum and an average would be off, and for whom."""
    [warning] = found(GOOD.replace("hi: 10000", "hi: 10000000"))
    assert "among 10,000 clients at epsilon 1 SUM has a standard error of 7.62e+07" in str(warning)
    assert "AVG of 5.39e+03, more than 3.16e+03" in str(warning)
    assert found(GOOD.replace("hi: 10000", "hi: 10000000"), 1_000_000) == ()


def test_too_few_clients_for_an_average() -> None:
    """Its count would be withheld."""
    assert {it.rule for it in found(GOOD, 20)} == {"wide-bounds", "wide-domain"}
    assert any("too few clients for an average" in it.message for it in found(GOOD, 20))


@pytest.mark.parametrize(
    "values, clients, rows, reason",
    [
        (2_000, 10_000, 1, "a group holds 5 rows on average, and a count has a standard error of"),
        (7_900, 4_000_000, 60_000, "7,900 values make a report of 63,249 bytes, more than the 60,"),
        (30_000, 4_000_000, 1, "cannot be grouped by: makes a plan that cannot be sent"),
    ],
)
def test_wide_domains_say_what_is_lost(values: int, clients: int, rows: int, reason: str) -> None:
    """Groups that are noise, reports that do not fit a page's leave, plans that do not fit."""
    many = ", ".join(f"v{number}" for number in range(values))
    wide = GOOD.replace("DE, FR", many).replace(
        "columns:", f"rows_max_default: {rows}\n    columns:"
    )
    assert any(it.rule == "wide-domain" and reason in it.message for it in found(wide, clients))


def test_faults_are_told_all_at_once_and_no_warnings_beside_them() -> None:
    """What cannot be read cannot be judged."""
    broken = GOOD.replace("lo: 0", "lo: low").replace("kind: category", "kind: set")
    assert [(it.severity, it.rule, it.line) for it in found(broken)] == [
        ("error", "schema", 9),
        ("error", "schema", 10),
    ]
    [fault] = found("events: [")
    assert (fault.severity, fault.line, fault.column) == ("error", 1, 10)
