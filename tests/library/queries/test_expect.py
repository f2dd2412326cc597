"""What is expected of an answer is what comes."""

import numpy as np
import pytest

from dandelion.privacy.accounting import noise_var_for
from dandelion.queries.decode import Z95, decode
from dandelion.queries.expect import expected
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query
from dandelion.queries.synthetic import simulated_sums
from dandelion.simulation import released_sums

REGISTRY = Registry.from_object(
    {
        "events": {
            "e": {
                "columns": {
                    "g": {"kind": "category", "values": ["A", "B"]},
                    "x": {"kind": "number", "lo": 0, "hi": 100},
                    "y": {"kind": "number", "lo": -7, "hi": 20},
                }
            }
        }
    }
)
QUESTIONS = [
    "SELECT g, COUNT(*), COUNT(x), SUM(x), AVG(x), SUM(y), AVG(y) FROM e GROUP BY g",
    "SELECT COUNT(*) FROM e",
    "SELECT g, HISTOGRAM(x, 10) FROM e GROUP BY g",
]


def plan_of(sql: str) -> Plan:
    """The plan at epsilon 1."""
    return compile_query(sql, REGISTRY, name="q", epsilon="1", delta="1e-8").parsed


@pytest.mark.parametrize("sql", QUESTIONS)
def test_errors_are_those_of_the_decoded_table(sql: str) -> None:
    """For sums that lie at the middle of the range, in evenly filled groups, cell for cell."""
    plan = plan_of(sql)
    variance = 2 * noise_var_for(plan.l2sq, 1.0, 1e-8)
    rows = 10_000
    exact = np.zeros(plan.slots, dtype=np.int64)
    for block in plan.blocks:
        measure = plan.measures[block.measure]
        if measure.op == "count":
            exact[block.start] = measure.scale * rows // len(plan.groups)
    table = decode(plan, exact, rows, variance)
    for each in expected(plan, variance, rows):
        cells = [cell for cell in table.cells if cell.name == each.name]
        assert len(cells) == each.cells
        for cell in cells:
            assert cell.std_error == pytest.approx(each.std_error)
            assert cell.ci_low is not None
            assert cell.ci_high is not None
            assert (cell.ci_high - cell.ci_low) / 2 == pytest.approx(each.ci_half)


def test_an_average_at_the_bounds_has_the_largest_error() -> None:
    """All values at the upper bound: what is said to be the most is reached."""
    plan = plan_of("SELECT AVG(y) FROM e")
    variance = 2 * noise_var_for(plan.l2sq, 1.0, 1e-8)
    [each] = expected(plan, variance, 10_000)
    exact = 10_000 * plan.execute([{"y": 20}], lambda n, k: range(k))
    [cell] = decode(plan, exact, 10_000, variance).cells
    assert cell.std_error == pytest.approx(each.std_error_most)
    assert each.std_error is not None
    assert each.std_error_most is not None
    assert each.std_error_most > each.std_error


def test_an_average_of_too_few_is_said_to_be_withheld() -> None:
    """Where `decode` would withhold it; a count beside it has its error all the same."""
    count, average = expected(plan_of("SELECT COUNT(*), AVG(x) FROM e"), 10**8, 10)
    assert average.withheld
    assert average.std_error is None
    assert count.std_error is not None
    assert not count.withheld
    assert expected(plan_of("SELECT AVG(x) FROM e"), 10**8, 0)[0].withheld


@pytest.mark.parametrize("sql", QUESTIONS)
def test_simulated_releases_stray_as_far_as_expected(sql: str) -> None:
    """Over 400 releases of the same sums, with exact noise of two helpers: 95 % of the intervals
    hold the exact answer, and counts and sums have the standard deviation that was said.
    """
    plan, draw = plan_of(sql), np.random.default_rng(7)
    noise_var = noise_var_for(plan.l2sq, 1.0, 1e-8)
    exact = simulated_sums(plan, REGISTRY.events["e"], 5_000, draw)
    truth = [cell.estimate for cell in decode(plan, exact, 5_000, 0).cells]
    tables = [
        decode(plan, released_sums(exact, noise_var, 2, draw.bytes), 5_000, 2 * noise_var).cells
        for _ in range(400)
    ]
    off = np.array([[c.estimate for c in cells] for cells in tables], float) - np.array(
        truth, float
    )
    low = np.array([[c.ci_low for c in cells] for cells in tables], float) - np.array(truth, float)
    high = np.array([[c.ci_high for c in cells] for cells in tables], float) - np.array(
        truth, float
    )
    # At least 400 independent intervals: a standard error of 1.1 % of the share at most.
    assert abs(np.mean((low <= 0) & (high >= 0)) - 0.95) < 0.04
    for each in expected(plan, 2 * noise_var, 5_000):
        mine = [index for index, cell in enumerate(tables[0]) if cell.name == each.name]
        assert each.std_error is not None
        assert each.std_error_most is not None
        assert each.ci_half == pytest.approx(Z95 * each.std_error, rel=0.02)
        deviation = np.sqrt(np.mean(off[:, mine] ** 2))
        assert 0.85 * each.std_error < deviation < 1.15 * each.std_error_most
