"""SQL: what can be asked, what cannot and where, and what a question becomes."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandelion.encoding import canonical_json, ceil_sqrt
from dandelion.errors import RuleError
from dandelion.params import SLOTS_MAX, WIDTHS
from dandelion.queries.grammar import SQL_CHARS_MAX
from dandelion.queries.measures import Count, Histogram, Output, Sum, Where
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import Compiled, SqlRefused, compile_query, least_width

REGISTRY = Registry.example()

CARRIERS = REGISTRY.events["flight"].columns["carrier"].values  # type: ignore[union-attr]


def compiled(sql: str, rows_max: int = 1, registry: Registry = REGISTRY) -> Compiled:
    """The question at epsilon 1, delta 1e-8."""
    return compile_query(sql, registry, name="test", epsilon="1", delta="1e-8", rows_max=rows_max)


def refused(sql: str) -> SqlRefused:
    """How the question is refused."""
    with pytest.raises(SqlRefused) as caught:
        compiled(sql)
    assert caught.value.token == "sql_refused"
    return caught.value


def test_counts_and_averages_by_group() -> None:
    """The demonstration's question: three measures, one of them shared by two outputs."""
    plan = compiled(
        "SELECT carrier, COUNT(*), COUNT(dep_delay), SUM(dep_delay), AVG(dep_delay) "
        "FROM flight GROUP BY carrier"
    ).parsed
    assert plan.measures == (
        Count(180),
        Count(180, "dep_delay"),
        Sum(1, "dep_delay", -60, 300, 120),
    )
    assert plan.outputs == (
        Output("count", "COUNT(*)", 0),
        Output("count", "COUNT(dep_delay)", 1),
        Output("sum", "SUM(dep_delay)", 2, 1),
        Output("avg", "AVG(dep_delay)", 2, 1),
    )
    assert plan.group is not None
    assert plan.group.values == CARRIERS
    assert (plan.slots, plan.linf, plan.l2sq) == (48, 180, 3 * 180**2)


def test_a_histogram_alone_and_by_group() -> None:
    """One measure of scale 1; its bins times the groups are the slots."""
    alone = compiled("SELECT HISTOGRAM(distance, 10) FROM flight").parsed
    assert alone.measures == (Histogram(1, "distance", 0, 5_000, 10),)
    assert (alone.slots, alone.linf, alone.l2sq) == (10, 1, 1)
    grouped = compiled("SELECT origin, HISTOGRAM(distance, 10) FROM flight GROUP BY origin").parsed
    assert grouped.slots == 30


def test_conditions_become_tests_of_the_plan() -> None:
    """All six comparisons, joined by AND."""
    plan = compiled(
        "SELECT COUNT(*) FROM flight WHERE carrier = 'UA' AND origin <> 'JFK' AND month < 7 "
        "AND hour <= 12 AND dep_delay > -5 AND distance >= 100 AND month != 2"
    ).parsed
    assert plan.where == (
        Where("carrier", "eq", "UA"),
        Where("origin", "ne", "JFK"),
        Where("month", "lt", 7),
        Where("hour", "le", 12),
        Where("dep_delay", "gt", -5),
        Where("distance", "ge", 100),
        Where("month", "ne", 2),
    )


@pytest.mark.parametrize(
    "sql",
    [
        "select Carrier, count(*) from FLIGHT group by CARRIER",
        'SELECT "carrier", COUNT(*) FROM "flight" GROUP BY "carrier";',
        "SELECT COUNT(*) -- all of them\nFROM flight /* here */ GROUP  BY carrier",
    ],
)
def test_spelling_is_free_where_sql_is_free(sql: str) -> None:
    """Case, quotes of names, comments, white space, a final semicolon."""
    plan = compiled(sql).parsed
    assert plan.sql == sql
    assert plan.group is not None
    assert plan.group.column == "carrier"


def test_a_plan_is_canonical_and_parses_as_itself() -> None:
    """What is compiled is what clients will read."""
    question = compiled("SELECT origin, AVG(dep_delay) FROM flight GROUP BY origin", rows_max=3)
    assert canonical_json(question.plan) == question.plan_bytes
    assert Plan.parse(question.plan_bytes) == question.parsed
    assert (question.slots, question.linf, question.l2sq) == (
        question.parsed.slots,
        question.parsed.linf,
        question.parsed.l2sq,
    )


@pytest.mark.parametrize(
    "sql, line, column, named",
    [
        ("", 1, 1, "ends too early"),
        ("SELECT", 1, 7, "ends too early"),
        ("SELECT COUNT(*)", 1, 16, "ends too early"),
        ("SELECT COUNT(*) FROM", 1, 21, "ends too early"),
        ("SELECT COUNT(* FROM flight", 1, 16, "closing parenthesis"),
        ("SELECT COUNT() FROM flight", 1, 14, "name of a column"),
        ("SELECT * FROM flight", 1, 8, "star"),
        ("SELECT carrier.* FROM flight", 1, 15, "qualified"),
        ("SELECT flight.carrier FROM flight", 1, 14, "qualified"),
        ("SELECT DISTINCT carrier FROM flight", 1, 8, "DISTINCT"),
        ("SELECT ALL carrier FROM flight", 1, 8, "ALL"),
        ("SELECT COUNT(DISTINCT carrier) FROM flight", 1, 14, "DISTINCT"),
        ("SELECT COUNT(*) AS n FROM flight", 1, 17, "name for a column"),
        ("SELECT COUNT(*) n FROM flight", 1, 17, "comma or FROM"),
        ("SELECT SUM(*) FROM flight", 1, 12, "star"),
        ("SELECT SUM(dep_delay + 1) FROM flight", 1, 22, "arithmetic"),
        ("SELECT AVG(dep_delay) - 1 FROM flight", 1, 23, "arithmetic"),
        ("SELECT -1 FROM flight", 1, 8, "arithmetic"),
        ("SELECT 1 FROM flight", 1, 8, "COUNT, SUM, AVG or HISTOGRAM"),
        ("SELECT 'a' FROM flight", 1, 8, "COUNT, SUM, AVG or HISTOGRAM"),
        ("SELECT NULL FROM flight", 1, 8, "null"),
        ("SELECT MAX(dep_delay) FROM flight", 1, 8, "MAX"),
        ("SELECT MEDIAN(dep_delay) FROM flight", 1, 8, "MEDIAN"),
        ("SELECT STDDEV(dep_delay) FROM flight", 1, 8, "STDDEV"),
        ("SELECT LAUNCH(dep_delay) FROM flight", 1, 8, "this function"),
        ("SELECT COALESCE(dep_delay, 0) FROM flight", 1, 8, "conditional"),
        ("SELECT CASE WHEN month = 1 THEN 1 END FROM flight", 1, 8, "conditional"),
        ("SELECT CAST(month AS TEXT) FROM flight", 1, 8, "cast"),
        ("SELECT month::text FROM flight", 1, 13, "cast"),
        ("SELECT (SELECT COUNT(*) FROM flight) FROM flight", 1, 8, "subquery"),
        ("SELECT COUNT(*) OVER () FROM flight", 1, 17, "window"),
        ("SELECT COUNT(*) FILTER (WHERE month = 1) FROM flight", 1, 17, "one aggregate"),
        ("SELECT HISTOGRAM(distance) FROM flight", 1, 26, "number of bins"),
        ("SELECT HISTOGRAM(distance, 'x') FROM flight", 1, 28, "number of bins"),
        ("SELECT HISTOGRAM(distance, 2.5) FROM flight", 1, 28, "integer"),
        ("SELECT HISTOGRAM(distance, 7) FROM flight", 1, 28, "4, 5, 8, 10"),
        ("SELECT HISTOGRAM(distance, 0) FROM flight", 1, 28, "divide"),
        ("SELECT HISTOGRAM(distance, -5) FROM flight", 1, 28, "divide"),
        ("SELECT HISTOGRAM(carrier, 5) FROM flight", 1, 18, "category"),
        ("SELECT HISTOGRAM(distance, 5), COUNT(*) FROM flight", 1, 8, "beside"),
        ("SELECT COUNT(*), HISTOGRAM(distance, 5) FROM flight", 1, 18, "beside"),
        ("SELECT COUNT(*) FROM flight, visit", 1, 28, "one event"),
        ("SELECT COUNT(*) FROM flight f", 1, 29, "one event"),
        ("SELECT COUNT(*) FROM flight JOIN visit ON 1 = 1", 1, 29, "join"),
        ("SELECT COUNT(*) FROM flight LEFT JOIN visit", 1, 29, "join"),
        ("SELECT COUNT(*) FROM flight CROSS JOIN visit", 1, 29, "join"),
        ("SELECT COUNT(*) FROM flight NATURAL JOIN visit", 1, 29, "join"),
        ("SELECT COUNT(*) FROM (SELECT 1)", 1, 22, "subquery"),
        ("SELECT COUNT(*) FROM main.flight", 1, 26, "qualified"),
        ("SELECT COUNT(*) FROM flight TABLESAMPLE (10)", 1, 29, "sampling"),
        ("WITH x AS (SELECT 1) SELECT COUNT(*) FROM x", 1, 1, "common table"),
        ("SELECT COUNT(*) FROM flight UNION SELECT COUNT(*) FROM flight", 1, 29, "combining"),
        ("SELECT COUNT(*) FROM flight HAVING COUNT(*) > 1", 1, 29, "HAVING"),
        ("SELECT COUNT(*) FROM flight ORDER BY 1", 1, 29, "ORDER BY"),
        ("SELECT COUNT(*) FROM flight LIMIT 3", 1, 29, "LIMIT"),
        ("SELECT COUNT(*) FROM flight OFFSET 3", 1, 29, "OFFSET"),
        ("SELECT COUNT(*) FROM flight QUALIFY 1 = 1", 1, 29, "QUALIFY"),
        ("SELECT COUNT(*) FROM flight; SELECT COUNT(*) FROM flight", 1, 30, "one question"),
        ("SELECT COUNT(*) FROM flight WHERE month = 1 OR month = 2", 1, 45, "alternative"),
        ("SELECT COUNT(*) FROM flight WHERE NOT month = 1", 1, 35, "NOT"),
        ("SELECT COUNT(*) FROM flight WHERE (month = 1)", 1, 35, "parenthesis"),
        ("SELECT COUNT(*) FROM flight WHERE month IN (1, 2)", 1, 41, "list of values"),
        ("SELECT COUNT(*) FROM flight WHERE month BETWEEN 1 AND 2", 1, 41, "BETWEEN"),
        ("SELECT COUNT(*) FROM flight WHERE carrier LIKE 'U%'", 1, 43, "pattern"),
        ("SELECT COUNT(*) FROM flight WHERE month IS NULL", 1, 41, "null"),
        ("SELECT COUNT(*) FROM flight WHERE EXISTS (SELECT 1)", 1, 35, "subquery"),
        ("SELECT COUNT(*) FROM flight WHERE 1 = month", 1, 35, "column first"),
        ("SELECT COUNT(*) FROM flight WHERE month", 1, 40, "ends too early"),
        ("SELECT COUNT(*) FROM flight WHERE month = hour", 1, 43, "string in single quotes"),
        ("SELECT COUNT(*) FROM flight WHERE month = NULL", 1, 43, "null"),
        ("SELECT COUNT(*) FROM flight WHERE month = TRUE", 1, 43, "literal"),
        ("SELECT COUNT(*) FROM flight WHERE month = ?", 1, 43, "string in single quotes"),
        ("SELECT COUNT(*) FROM flight WHERE month = 1.5", 1, 43, "integer below 2^53"),
        ("SELECT COUNT(*) FROM flight WHERE month = 1e3", 1, 43, "integer below 2^53"),
        ("SELECT COUNT(*) FROM flight WHERE month = 9007199254740992", 1, 43, "below 2^53"),
        ("SELECT COUNT(*) FROM flight WHERE month = - 1.5", 1, 43, "integer below 2^53"),
        ("SELECT COUNT(*) FROM flight WHERE month + 1 = 2", 1, 41, "arithmetic"),
        ("SELECT COUNT(*) FROM flight WHERE month = 1 + 1", 1, 45, "arithmetic"),
        ("SELECT COUNT(*) FROM flight WHERE month = 'x'", 1, 43, "not compared with a string"),
        ("SELECT COUNT(*) FROM flight WHERE carrier = 1", 1, 45, "not compared with a number"),
        ("SELECT COUNT(*) FROM flight WHERE carrier < 'B'", 1, 43, "no order"),
        ("SELECT COUNT(*) FROM flight WHERE carrier = 'ZZ'", 1, 45, "9E, AA"),
        ("SELECT COUNT(*) FROM flight WHERE weight = 1", 1, 35, "dep_delay"),
        ("SELECT COUNT(*) FROM visit", 1, 22, "declared: flight"),
        ("SELECT SUM(weight) FROM flight", 1, 12, "no such column"),
        ("SELECT SUM(carrier) FROM flight", 1, 12, "category"),
        ("SELECT AVG(carrier) FROM flight", 1, 12, "category"),
        ("SELECT carrier, COUNT(*) FROM flight", 1, 8, "add GROUP BY"),
        ("SELECT origin, COUNT(*) FROM flight GROUP BY carrier", 1, 8, "group column"),
        ("SELECT carrier FROM flight GROUP BY carrier", 1, 8, "nothing is counted"),
        ("SELECT COUNT(*) FROM flight GROUP BY month", 1, 38, "HISTOGRAM"),
        ("SELECT COUNT(*) FROM flight GROUP BY carrier, origin", 1, 45, "one group column"),
        ("SELECT COUNT(*) FROM flight GROUP BY 1", 1, 38, "name of a column"),
        ("SELECT COUNT(*), COUNT(*) FROM flight", 1, 18, "twice"),
        ("SELECT COUNT(*) FROM flight WHERE carrier = 'UA", 1, 48, "still open"),
        ("SELECT COUNT(*) FROM flight /* all", 1, 35, "still open"),
        ("INSERT INTO flight VALUES (1)", 1, 1, "only SELECT"),
        ("DELETE FROM flight", 1, 1, "only SELECT"),
        ("DROP TABLE flight", 1, 1, "only SELECT"),
        ("UPDATE flight SET month = 1", 1, 1, "only SELECT"),
        ("EXPLAIN SELECT COUNT(*) FROM flight", 1, 1, "only SELECT"),
        ("hello", 1, 1, "expected SELECT"),
        ("SELECT COUNT(*)\nFROM flight\n  LIMIT 3", 3, 3, "LIMIT"),
        ("SELECT COUNT(*) FROM flight\r\nWHERE é = 1", 2, 7, "name of a column"),
    ],
)
def test_everything_else_is_refused_where_it_stands(
    sql: str, line: int, column: int, named: str
) -> None:
    """The refusal gives line and column, names the construct and says what to write instead."""
    error = refused(sql)
    assert (error.line, error.column) == (line, column)
    assert named in error.reason
    assert error.detail == f"line {line}, column {column}: {error.reason}"


@pytest.mark.parametrize("word", ["xyzzy", "Zm9v"])
def test_a_refusal_never_repeats_what_was_asked(word: str) -> None:
    """Details go to logs and to other people's screens."""
    for sql in (
        f"SELECT {word}(month) FROM flight",
        f"SELECT SUM({word}) FROM flight",
        f"SELECT COUNT(*) FROM {word}",
        f"SELECT COUNT(*) FROM flight WHERE carrier = '{word}'",
        f"SELECT COUNT(*) FROM flight {word}",
    ):
        assert word not in refused(sql).detail


def test_too_long_a_question_is_refused_unread() -> None:
    """Before a token is cut."""
    assert "longer" in refused("SELECT " + " " * SQL_CHARS_MAX).reason


def test_a_plan_that_is_too_long_is_refused_where_it_is_grouped() -> None:
    """Group values are part of the plan; 8,000 of them do not fit."""
    values = [f"value {number:05}" for number in range(8_000)]
    registry = Registry.from_object(
        {"events": {"e": {"columns": {"c": {"kind": "category", "values": values}}}}}
    )
    with pytest.raises(SqlRefused) as caught:
        compiled("SELECT c, COUNT(*) FROM e GROUP BY c", registry=registry)
    assert caught.value.column == 36
    assert "fewer or shorter values" in caught.value.reason


def test_more_slots_than_a_vector_may_have_are_refused() -> None:
    """16 groups of 2^17 bins are too many; the refusal counts them."""
    registry = Registry.from_object(
        {
            "events": {
                "big": {
                    "columns": {
                        "who": {"kind": "category", "values": [f"w{i}" for i in range(16)]},
                        "much": {"kind": "number", "lo": 0, "hi": 2**17},
                    }
                }
            }
        }
    )
    fine = "SELECT HISTOGRAM(much, 131072) FROM big"
    assert compiled(fine, registry=registry).slots < SLOTS_MAX
    with pytest.raises(SqlRefused, match="2097152 slots"):
        compiled(fine.replace("big", "big GROUP BY who"), registry=registry)


def test_a_range_too_wide_for_the_bounds_is_refused() -> None:
    """l2sq must fit a descriptor."""
    registry = Registry.from_object(
        {"events": {"big": {"columns": {"much": {"kind": "number", "lo": 0, "hi": 2**40}}}}}
    )
    with pytest.raises(SqlRefused, match="smaller range"):
        compiled("SELECT SUM(much) FROM big", registry=registry)


@pytest.mark.parametrize("rows_max", [0, 65_536])
def test_rows_max_has_limits(rows_max: int) -> None:
    """They are those of section 15.1."""
    with pytest.raises(RuleError, match="rows_max"):
        compiled("SELECT COUNT(*) FROM flight", rows_max=rows_max)


@pytest.mark.parametrize("epsilon, delta", [("much", "1e-8"), ("1", "2"), ("-1", "1e-8")])
def test_epsilon_and_delta_are_decimal_numbers(epsilon: str, delta: str) -> None:
    """Anything else is refused, with the field's name."""
    with pytest.raises(RuleError, match=r"epsilon|delta"):
        compile_query(
            "SELECT COUNT(*) FROM flight", REGISTRY, name="x", epsilon=epsilon, delta=delta
        )


@given(st.lists(st.tuples(st.integers(-1000, 1000), st.integers(1, 3000)), min_size=1, max_size=4))
def test_measures_share_the_budget_evenly(ranges: list[tuple[int, int]]) -> None:
    """No measure moves less than two thirds or more than four thirds as far as the widest sum.

    The noise is the same for all, so a measure of a third of the scale would have thrice the error.
    """
    columns = {
        f"c{i}": {"kind": "number", "lo": lo, "hi": lo + span}
        for i, (lo, span) in enumerate(ranges)
    }
    registry = Registry.from_object({"events": {"e": {"columns": columns}}})
    sums = ", ".join(f"AVG({name})" for name in columns)
    plan = compiled(f"SELECT COUNT(*), {sums} FROM e", registry=registry).parsed
    widest = max((span + 1) // 2 for _, span in ranges)
    magnitudes = [measure.magnitude for measure in plan.measures]
    assert max(m.magnitude for m in plan.measures if isinstance(m, Count)) == widest
    assert all(2 * widest <= 3 * each <= 4 * widest for each in magnitudes)


def test_sums_are_taken_from_the_middle() -> None:
    """One row moves a sum of 0..5000 by 2500 at most, not by 5000."""
    plan = compiled("SELECT SUM(distance) FROM flight").parsed
    assert plan.measures[0] == Sum(1, "distance", 0, 5_000, 2_500)
    assert plan.linf == 2_500


def fits(width: int, slots: int, linf: int, cohort_max: int, noise_var: int, m: int) -> bool:
    """Overflow and detection, in exact integers."""
    reach = cohort_max * linf + 12 * ceil_sqrt(m * noise_var)
    enough = reach + 1 <= 2 ** (width - 1)
    hidden = (2 * reach + 1) ** slots << 40 > 1 << (width * slots)
    return enough and not hidden


@given(
    st.integers(1, 60),
    st.integers(1, 2**20),
    st.integers(1, 2**22),
    st.integers(1, 2**40),
    st.integers(2, 16),
)
def test_the_width_is_the_least_that_is_safe(
    slots: int, linf: int, cohort_max: int, noise_var: int, m: int
) -> None:
    """It fits, and the next smaller one does not; if none fits, that is said."""
    safe = [w for w in WIDTHS if fits(w, slots, linf, cohort_max, noise_var, m)]
    if not safe:
        with pytest.raises(RuleError, match="overflow"):
            least_width(slots, linf, cohort_max, noise_var, m)
        return
    assert least_width(slots, linf, cohort_max, noise_var, m) == safe[0]


def test_few_slots_need_wider_words_than_overflow_alone_asks_for() -> None:
    """One slot of 16 bits would let half of all damaged sums pass as plausible."""
    assert fits(16, 1_000, 1, 1_000, 30, 2)
    widths = [least_width(slots, 1, 1_000, 30, 2) for slots in (1, 4, 1_000)]
    assert widths == [64, 24, 16]
    assert all(left >= right for left, right in pairwise(widths))
    # The control: by the overflow rule alone, 16 bits do for all of them.
    assert 1_000 + 12 * math.isqrt(60) + 13 <= 2**15
