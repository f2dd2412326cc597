"""A plan in plain words: everything a person would want to know is said."""

from dandelion.queries.explain import explain
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query


def words(sql: str, rows_max: int = 1) -> str:
    """The explanation of a question."""
    plan = compile_query(
        sql, Registry.example(), name="q", epsilon="0.5", delta="1e-8", rows_max=rows_max
    ).parsed
    return explain(plan, helpers=2, cohort_min=1_000)


def test_an_average_by_group() -> None:
    """Which records, how many, what of them, who adds noise, what is promised."""
    text = words("SELECT carrier, COUNT(*), AVG(dep_delay) FROM flight GROUP BY carrier")
    for part in (
        "“SELECT carrier, COUNT(*), AVG(dep_delay) FROM flight GROUP BY carrier”",
        "its own records of “flight” and uses at most one record",
        "that the record exists, dep_delay, limited to -60 to 300 and whether dep_delay is known",
        "9E, AA, AS, B6, DL, EV and 10 more",
        "a list of 48 numbers",
        "If nothing matches it sends zeros",
        "at least 1000 clients",
        "2 independent helpers",
        "epsilon 0.5, delta 1e-8",
        "at most 1.65 times as likely",
    ):
        assert part in text


def test_a_histogram_with_conditions() -> None:
    """Conditions and bins are spelt out."""
    text = words(
        "SELECT HISTOGRAM(distance, 10) FROM flight WHERE carrier <> 'UA' AND month <= 6", 5
    )
    assert "at most 5 records of those where carrier is not “UA” and month is at most 6" in text
    assert "into which of 10 ranges from 0 to 5000 distance falls" in text


def test_one_number_is_not_numbers() -> None:
    """Grammar."""
    assert "a list of 1 number." in words("SELECT COUNT(*) FROM flight")
