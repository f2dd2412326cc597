"""Released sums become answers whose intervals hold what they promise (docs/protocol.md 15.4)."""

import json
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from dandelion.queries.decode import Cell, decode, fieller, truth
from dandelion.queries.measures import Row
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query

SQL = (
    "SELECT origin, COUNT(*), SUM(dep_delay), AVG(dep_delay) FROM flight "
    "WHERE month = 1 GROUP BY origin"
)
RELEASES = 2_000
CLIENTS: Sequence[Sequence[Row]] = [
    *([[{"origin": "EWR", "month": 1, "dep_delay": delay}] for delay in range(-30, 90)]),
    *([[{"origin": "JFK", "month": 1, "dep_delay": 7.9}]] * 40),
    [{"origin": "JFK", "month": 1, "dep_delay": None}],
    [{"origin": "JFK", "month": 1, "dep_delay": 1_000}],
    [{"origin": "JFK", "month": 2, "dep_delay": 5}],
    [{"origin": "ZZZ", "month": 1, "dep_delay": 5}],
]


def plan_of(sql: str) -> Plan:
    """The question at epsilon 1."""
    return compile_query(sql, Registry.example(), name="delays", epsilon="1", delta="1e-8").parsed


def summed(plan: Plan, clients: Sequence[Sequence[Row]] = CLIENTS) -> npt.NDArray[np.int64]:
    """The sum of all clients' vectors, without noise."""
    total = np.zeros(plan.slots, dtype=np.int64)
    for rows in clients:
        total += plan.execute(rows, lambda n, k: range(k))
    return total


def cell(cells: Sequence[Cell], group: str | None, name: str) -> Cell:
    """The one cell of a group and an output."""
    (found,) = [each for each in cells if (each.group, each.name) == (group, name)]
    return found


def test_without_noise_the_table_is_the_truth() -> None:
    """Count, sum and average come back exactly, from clamped and rounded values."""
    plan = plan_of(SQL)
    table = decode(plan, summed(plan), len(CLIENTS), 0)
    for shown, true in zip(table.cells, truth(plan, CLIENTS), strict=True):
        assert (shown.group, shown.name, shown.bin) == (true.group, true.name, true.bin)
        assert shown.estimate == pytest.approx(true.value)
        assert shown.std_error in (0, None)


def test_truth_shows_what_clamping_changes() -> None:
    """A delay of 1000 counts as 300 and 7.9 as 7; the values as recorded stand beside it."""
    plan = plan_of(SQL)
    true = next(t for t in truth(plan, CLIENTS) if (t.group, t.name) == ("JFK", "AVG(dep_delay)"))
    assert true.value == pytest.approx((40 * 7 + 300) / 41)
    assert true.unclamped == pytest.approx((40 * 7.9 + 1_000) / 41)


def test_cells_come_group_by_group_in_the_order_asked() -> None:
    """Every declared group is there, also one that nobody is in."""
    plan = plan_of(SQL)
    table = decode(plan, summed(plan), len(CLIENTS), 100)
    assert [(each.group, each.name) for each in table.cells] == [
        (group, name)
        for group in ("EWR", "JFK", "LGA")
        for name in ("COUNT(*)", "SUM(dep_delay)", "AVG(dep_delay)")
    ]
    assert (table.query, table.group, table.reports) == ("delays", "origin", len(CLIENTS))


def test_a_histogram_has_a_cell_for_each_bin() -> None:
    """With its edges; the last bin holds the upper bound and what was clamped to it."""
    plan = plan_of("SELECT HISTOGRAM(distance, 5) FROM flight")
    clients: list[list[Row]] = [[{"distance": d}] for d in (-1, 0, 999, 1_000, 4_999, 5_000, 9_000)]
    cells = decode(plan, summed(plan, clients), 7, 0).cells
    assert [each.bin for each in cells] == [(i * 1_000, (i + 1) * 1_000) for i in range(5)]
    assert [each.estimate for each in cells] == [3, 1, 0, 0, 3]
    assert [t.value for t in truth(plan, clients)] == [3, 1, 0, 0, 3]


def test_errors_are_propagated_to_first_order() -> None:
    """Two helpers of variance v: count, sum and average by the formulas of the text."""
    plan = plan_of(SQL)
    variance = 2 * 5_000_000
    sigma = math.sqrt(variance)
    cells = decode(plan, summed(plan), len(CLIENTS), variance).cells
    count, total, mean = (
        cell(cells, "EWR", name) for name in ("COUNT(*)", "SUM(dep_delay)", "AVG(dep_delay)")
    )
    assert count.std_error == pytest.approx(sigma / 180)
    assert count.ci_high == pytest.approx(120 + 1.96 * sigma / 180, rel=1e-4)
    assert total.std_error == pytest.approx(math.hypot(sigma, 120 * sigma / 180))
    ratio = 29.5 - 120
    assert mean.std_error == pytest.approx(math.hypot(sigma, ratio * sigma / 180) / 120)


def test_an_average_of_hardly_anything_is_withheld() -> None:
    """Below four standard errors of its count there is no average, and the reason says so."""
    plan = plan_of(SQL)
    for people, withheld in ((0, True), (3, True), (4, False)):
        sums = np.zeros(plan.slots, dtype=np.int64)
        sums[6] = 180 * people  # non-null delays at EWR
        mean = decode(plan, sums, 9, 180**2).cells[2]
        assert mean.withheld is withheld
        assert (mean.estimate is None) is withheld
        assert bool(mean.reason) is withheld


def test_without_noise_the_average_of_nothing_is_withheld() -> None:
    """Nothing is divided by zero."""
    plan = plan_of(SQL)
    mean = decode(plan, np.zeros(plan.slots, dtype=np.int64), 0, 0).cells[2]
    assert mean.withheld


def test_rows_are_fit_for_json() -> None:
    """Flat objects; a bin is a pair, what is withheld is null."""
    plan = plan_of("SELECT origin, HISTOGRAM(distance, 2) FROM flight GROUP BY origin")
    rows = decode(plan, [0] * plan.slots, 0, 100).to_rows()
    assert json.loads(json.dumps(rows))[1] == {
        "group": "EWR",
        "name": "HISTOGRAM(distance, 2)",
        "bin": [2_500, 5_000],
        "estimate": 0.0,
        "std_error": 10.0,
        "ci_low": pytest.approx(-19.6, abs=0.01),
        "ci_high": pytest.approx(19.6, abs=0.01),
        "withheld": False,
        "reason": "",
    }


def test_sums_of_another_plan_are_refused() -> None:
    """Too few or too many words are a mistake of the caller."""
    plan = plan_of(SQL)
    with pytest.raises(ValueError, match="slots"):
        decode(plan, [0] * (plan.slots - 1), 0, 1)


def test_fieller_agrees_with_its_definition() -> None:
    """At both ends the distance is exactly z standard errors; in between it is less."""
    value, error, count, count_error, z = -300.0, 20.0, 50.0, 6.0, 1.96
    low, high = fieller(value, error, count, count_error, z)

    def distance(t: float) -> float:
        return abs(value - t * count) / math.hypot(error, t * count_error)

    assert distance(low) == pytest.approx(z)
    assert distance(high) == pytest.approx(z)
    assert distance((low + high) / 2) < z
    with pytest.raises(ValueError, match="distinct"):
        fieller(1.0, 1.0, 1.0, 1.0)


def coverage(average_of: str) -> dict[str, float]:
    """Share of simulated releases whose interval holds the truth, by output.

    The group has 120 clients; the noise is such that its count is about six standard errors, where
    an interval that took the average for normal would be visibly wrong.
    """
    plan = plan_of(SQL)
    exact = summed(plan)
    sigma = 180 * 20.0
    rng = np.random.default_rng(20_130_101)
    noise = np.rint(rng.normal(0.0, sigma, size=(RELEASES, plan.slots))).astype(np.int64)
    true = {t.name: t.value for t in truth(plan, CLIENTS) if t.group == average_of}
    held = dict.fromkeys(true, 0)
    shown = dict.fromkeys(true, 0)
    for each in noise:
        for found in decode(plan, exact + each, len(CLIENTS), int(sigma**2)).cells:
            value = true[found.name]
            if found.group != average_of or value is None:
                continue
            if found.ci_low is not None and found.ci_high is not None:
                shown[found.name] += 1
                held[found.name] += found.ci_low <= value <= found.ci_high
    return {name: held[name] / shown[name] for name in held}


def test_intervals_hold_the_truth_in_95_of_100_releases() -> None:
    """Count, sum and average, each within two points over 2,000 releases."""
    for name, share in coverage("EWR").items():
        assert 0.93 <= share <= 0.97, name


def test_intervals_that_are_too_short_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the 90 % point instead of the 95 % point the shares are out of bounds."""
    monkeypatch.setattr("dandelion.queries.decode.Z95", 1.6449)
    monkeypatch.setattr("dandelion.queries.decode.fieller.__defaults__", (1.6449,))
    assert all(share < 0.93 for share in coverage("EWR").values())
