"""A plan on many clients at once gives what it gives client by client."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandelion.queries.columns import NO_TEXT, Numbers, Rows, Texts, sums
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query
from dandelion.queries.synthetic import simulated_sums
from tests.library.queries.strategies import COLUMNS, WORDS, plans

names = st.sampled_from(COLUMNS)
numbers = st.one_of(st.none(), st.integers(-600, 600), st.floats(-600, 600), st.just(2.0**52))
texts = st.sampled_from((None, *WORDS, "never asked for"))


@st.composite
def tables(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Rows of a few clients; each column holds numbers only, or texts only, and some are absent."""
    held = {
        name: draw(st.sampled_from((numbers, texts))) for name in draw(st.sets(names, min_size=1))
    }
    return draw(st.lists(st.lists(st.fixed_dictionaries(held), max_size=7), max_size=5))


def together(clients: list[list[dict[str, Any]]]) -> Rows:
    """The same rows, column by column."""
    rows = [row for client in clients for row in client]
    owner = [index for index, client in enumerate(clients) for _ in client]
    columns: dict[str, Numbers | Texts] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if any(isinstance(value, str) for value in values):
            words = tuple(dict.fromkeys(value for value in values if value is not None))
            codes = [NO_TEXT if value is None else words.index(value) for value in values]
            columns[name] = Texts(np.array(codes, dtype=np.int32), words)
        else:
            floats = [np.nan if value is None else value for value in values]
            columns[name] = Numbers(np.array(floats, dtype=np.float64))
    return Rows(np.array(owner, dtype=np.int64), columns)


@given(plans(), tables())
def test_together_is_one_by_one(
    document: dict[str, Any], clients: list[list[dict[str, Any]]]
) -> None:
    """Exactly, for every plan, when no client has more rows than count."""
    plan = Plan.parse(document | {"rows_max": 7})
    alone = [plan.execute(client, lambda n, k: range(k)) for client in clients]
    expected = np.sum(alone, axis=0) if alone else np.zeros(plan.slots)
    found = sums(plan, together(clients), np.random.default_rng(1))
    assert found.tolist() == expected.tolist()


MEASURES = [
    {"op": "count", "scale": 1, "column": "alpha"},
    {"op": "count", "scale": 1, "column": "beta"},
    {"op": "sum", "scale": 2, "column": "beta", "lo": -9, "hi": 9, "centre": 1},
    {"op": "count", "scale": 1},
]
CORNERS: list[list[dict[str, Any]]] = [
    [{"alpha": "AA", "beta": -1.5}, {"alpha": None, "beta": None}],
    [{"alpha": "BB", "beta": 100.0}, {"alpha": "AA", "beta": -0.5}],
]


@pytest.mark.parametrize(
    "where, expected",
    [
        ([], [3, 3, 2 * (-2 + 9 - 1 - 3), 4]),
        ([{"column": "beta", "test": "lt", "value": -1}], [1, 1, 2 * (-2 - 1), 1]),
        ([{"column": "beta", "test": "ne", "value": 9}], [3, 3, 2 * (-2 + 9 - 1 - 3), 3]),
        ([{"column": "alpha", "test": "ne", "value": "BB"}], [2, 2, 2 * (-2 - 1 - 2), 2]),
        ([{"column": "alpha", "test": "ne", "value": "nobody"}], [3, 3, 2 * (-2 + 9 - 1 - 3), 3]),
        ([{"column": "alpha", "test": "eq", "value": "nobody"}], [0, 0, 0, 0]),
        # A text is no number, and then no value of that column either.
        ([{"column": "alpha", "test": "ne", "value": 5}], [0, 0, 0, 0]),
        ([{"column": "beta", "test": "eq", "value": "AA"}], [0, 0, 0, 0]),
    ],
)
def test_corners_are_those_of_one_by_one(where: list[dict[str, Any]], expected: list[int]) -> None:
    """Rounding down below zero, nulls that satisfy nothing, texts where numbers are asked for."""
    plan = plan_of(MEASURES, where)
    found = sums(plan, together(CORNERS), np.random.default_rng(1))
    alone = [plan.execute(client, lambda n, k: range(k)) for client in CORNERS]
    assert found.tolist() == np.sum(alone, axis=0).tolist() == expected


def test_a_text_is_no_value_of_a_column_that_is_summed() -> None:
    """What is counted of a number column is numbers only."""
    plan = plan_of([MEASURES[0], {**MEASURES[2], "column": "alpha"}], [])
    found = sums(plan, together(CORNERS), np.random.default_rng(1))
    alone = [plan.execute(client, lambda n, k: range(k)) for client in CORNERS]
    assert found.tolist() == np.sum(alone, axis=0).tolist() == [0, 0]


def plan_of(measures: list[dict[str, Any]], where: list[dict[str, Any]]) -> Plan:
    """A plan of these measures, of which 7 rows of a client count."""
    return Plan.parse(
        {
            "query": "q",
            "sql": "SELECT",
            "event": "e",
            "epsilon": "1",
            "delta": "1e-8",
            "kind": "aggregate",
            "rows_max": 7,
            "measures": measures,
            "outputs": [{"op": "count", "name": "n", "measure": 0}],
        }
        | ({"where": where} if where else {})
    )


def test_no_more_rows_of_a_client_count_than_may() -> None:
    """Three of ten rows, drawn evenly; those of another client do not matter."""
    plan = Plan.parse(
        {
            "query": "q",
            "sql": "SELECT",
            "event": "e",
            "epsilon": "1",
            "delta": "1e-8",
            "kind": "aggregate",
            "rows_max": 3,
            "measures": [
                {"op": "histogram", "scale": 1, "column": "x", "lo": 0, "hi": 11, "bins": 11}
            ],
            "outputs": [{"op": "histogram", "name": "h", "measure": 0}],
        }
    )
    clients = [[{"x": value} for value in range(10)], [{"x": 10}]]
    draw = np.random.default_rng(5)
    drawn = np.array([sums(plan, together(clients), draw) for _ in range(2_000)])
    assert set(drawn[:, :10].sum(axis=1)) == {3}
    assert set(drawn[:, 10]) == {1}
    # 600 expected of each, standard deviation 20.5.
    assert np.all(np.abs(drawn[:, :10].sum(axis=0) - 600) < 5 * 20.5)


def test_simulated_clients_fill_every_group_evenly() -> None:
    """Uniform values, one row each: 100,000 clients over 3 airports, exactly 100,000 in all."""
    registry = Registry.example()
    compiled = compile_query(
        "SELECT origin, COUNT(*) FROM flight GROUP BY origin",
        registry,
        name="q",
        epsilon="1",
        delta="1e-8",
    )
    event = registry.events["flight"]
    found = simulated_sums(compiled.parsed, event, 100_000, np.random.default_rng(2))
    assert found.sum() == 100_000
    # Standard deviation 149.
    assert np.all(np.abs(found - 100_000 / 3) < 5 * 149)
    again = simulated_sums(compiled.parsed, event, 100_000, np.random.default_rng(2))
    assert again.tolist() == found.tolist()


def test_simulated_clients_have_more_rows_than_count() -> None:
    """With rows_max 2 a client has 1 to 3 rows: five thirds of them count on average."""
    registry = Registry.example()
    compiled = compile_query(
        "SELECT COUNT(*) FROM flight", registry, name="q", epsilon="1", delta="1e-8", rows_max=2
    )
    event = registry.events["flight"]
    [found] = simulated_sums(compiled.parsed, event, 30_000, np.random.default_rng(3))
    # Standard deviation 82 of 50,000.
    assert abs(found - 50_000) < 5 * 82
