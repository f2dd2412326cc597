"""Plans: what is refused, what a row adds, and how far a vector can go (docs/protocol.md 15)."""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandelion.encoding import canonical_json
from dandelion.errors import WireError
from dandelion.queries import plan as plan_module
from dandelion.queries.plan import Plan
from tests.library.queries.strategies import plans, rows

GOOD: dict[str, Any] = {
    "delta": "1e-8",
    "epsilon": "0.5",
    "event": "flight",
    "group": {"column": "carrier", "values": ["AA", "UA"]},
    "kind": "aggregate",
    "measures": [
        {"op": "count", "scale": 10},
        {"op": "sum", "scale": 2, "column": "delay", "lo": -4, "hi": 10, "centre": 3},
        {"op": "count", "scale": 10, "column": "delay"},
        {"op": "histogram", "scale": 1, "column": "far", "lo": 0, "hi": 100, "bins": 4},
    ],
    "outputs": [
        {"op": "count", "name": "n", "measure": 0},
        {"op": "avg", "name": "mean", "measure": 1, "count": 2},
        {"op": "histogram", "name": "h", "measure": 3},
    ],
    "query": "q",
    "rows_max": 1,
    "sql": "SELECT …",
    "where": [{"column": "far", "test": "ge", "value": 0}],
}


def never(n: int, k: int) -> Sequence[int]:
    """No row has to be left out here."""
    raise AssertionError("nothing to choose")


def first(n: int, k: int) -> Sequence[int]:
    """The first rows instead of random ones."""
    return range(k)


def changed(path: str, value: object) -> dict[str, Any]:
    """GOOD with one place changed; None removes it."""
    document = copy.deepcopy(GOOD)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = document
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def oracle(document: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> list[int]:
    """Section 15.2 once more, without sharing a line with the library: a table of cells by key."""

    def number(value: Any) -> int | None:
        if type(value) is int:
            return int(value)
        if type(value) is float and math.isfinite(value):
            return math.floor(value)
        return None

    tests = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
    }

    def passes(row: Mapping[str, Any]) -> bool:
        for condition in document.get("where", []):
            mine = row.get(condition["column"])
            if isinstance(condition["value"], str):
                mine = mine if isinstance(mine, str) else None
            else:
                mine = number(mine)
            if mine is None or not tests[condition["test"]](mine, condition["value"]):
                return False
        return True

    numeric = {m["column"] for m in document["measures"] if m["op"] != "count"}
    numeric |= {w["column"] for w in document.get("where", []) if isinstance(w["value"], int)}
    groups = document["group"]["values"] if "group" in document else [None]
    cells: dict[tuple[int, int, int], int] = {}
    for m, measure in enumerate(document["measures"]):
        for g in range(len(groups)):
            for b in range(measure.get("bins", 1)):
                cells[m, g, b] = 0
    for row in [row for row in table if passes(row)][: document["rows_max"]]:
        g = 0
        if "group" in document:
            value = row.get(document["group"]["column"])
            if not isinstance(value, str) or value not in groups:
                continue
            g = groups.index(value)
        for m, measure in enumerate(document["measures"]):
            column = measure.get("column")
            if column is None:
                cells[m, g, 0] += measure["scale"]
                continue
            value = number(row.get(column))
            if measure["op"] == "count":
                text = isinstance(row.get(column), str) and column not in numeric
                cells[m, g, 0] += measure["scale"] if text or value is not None else 0
            elif value is not None:
                kept = sorted((measure["lo"], value, measure["hi"]))[1]
                if measure["op"] == "sum":
                    cells[m, g, 0] += measure["scale"] * (kept - measure["centre"])
                else:
                    step = (measure["hi"] - measure["lo"]) // measure["bins"]
                    b = min((kept - measure["lo"]) // step, measure["bins"] - 1)
                    cells[m, g, b] += measure["scale"]
    return list(cells.values())


@pytest.mark.parametrize(
    "path, value, named",
    [
        ("kind", "program", "kind"),
        ("kind", None, "plan"),
        ("surprise", 1, "plan"),
        ("epsilon", "much", "epsilon"),
        ("epsilon", "0", "epsilon"),
        ("epsilon", "-1", "epsilon"),
        ("epsilon", "1_0", "epsilon"),
        ("epsilon", "nan", "epsilon"),
        ("epsilon", "٣", "epsilon"),
        ("epsilon", 1, "epsilon"),
        ("delta", "1", "delta"),
        ("delta", "0.0", "delta"),
        ("event", "", "event"),
        ("event", 7, "event"),
        ("query", "", "query"),
        ("sql", "", "sql"),
        ("rows_max", 0, "rows_max"),
        ("rows_max", 65_536, "rows_max"),
        ("rows_max", "1", "rows_max"),
        ("group", {"column": "carrier"}, "group"),
        ("group.values", [], "group.values"),
        ("group.values", ["AA", "AA"], "group.values"),
        ("group.values", ["AA", 1], "group.values"),
        ("group.column", "", "group.column"),
        ("measures", [], "measures"),
        ("measures", {}, "measures"),
        ("measures.0.op", "median", "measures.0.op"),
        ("measures.0", "count", "measures.0.op"),
        ("measures.0.scale", 0, "measures.0.scale"),
        ("measures.0.column", "", "measures.0.column"),
        ("measures.0.lo", 1, "measures.0"),
        ("measures.1.centre", -5, "measures.1.centre"),
        ("measures.1.centre", 11, "measures.1.centre"),
        ("measures.1.centre", None, "measures.1"),
        ("measures.1.lo", 10, "measures.1.lo"),
        ("measures.3.bins", 3, "measures.3.bins"),
        ("measures.3.bins", 0, "measures.3.bins"),
        ("measures.3.hi", 2**53 - 1, "measures.3.bins"),
        ("outputs", [], "outputs"),
        ("outputs.0.op", "max", "outputs.0.op"),
        ("outputs.0.measure", 9, "outputs.0.measure"),
        ("outputs.0.measure", 1, "outputs.0.measure"),
        ("outputs.0.count", 2, "outputs.0"),
        ("outputs.1.count", 0, "outputs.1.count"),
        ("outputs.1.count", 3, "outputs.1.count"),
        ("outputs.1.count", None, "outputs.1"),
        ("outputs.2.name", "", "outputs.2.name"),
        ("where.0.test", "like", "where.0.test"),
        ("where.0.value", "x", "where.0.test"),
        ("where.0.value", [], "where.0.value"),
        ("where.0", [], "where.0"),
    ],
)
def test_what_the_text_does_not_allow_is_refused_with_its_path(
    path: str, value: object, named: str
) -> None:
    """One change to a good plan makes it `bad_plan`, and the detail leads to the change."""
    with pytest.raises(WireError) as caught:
        Plan.parse(changed(path, value))
    assert caught.value.token == "bad_plan"
    assert caught.value.detail.startswith(f"{named}: ")


def test_the_plan_that_those_changes_start_from_is_good() -> None:
    """The control: unchanged, it is accepted."""
    assert Plan.parse(GOOD).slots == 2 * (1 + 1 + 1 + 4)


@pytest.mark.parametrize("value", [True, 1.0, None])
def test_an_object_is_held_to_the_same_types_as_bytes(value: object) -> None:
    """Booleans, fractions and null have no canonical form, so no plan has them."""
    document = copy.deepcopy(GOOD) | {"rows_max": value}
    with pytest.raises(WireError, match="bad_plan"):
        Plan.parse(document)


def test_more_slots_than_allowed_are_refused_before_any_vector_exists() -> None:
    """2^20 + 1 bins are one too many."""
    histogram = {"op": "histogram", "scale": 1, "column": "far", "lo": 0, "hi": 2**20}
    fits = changed("measures.3", histogram | {"bins": 2**20})
    del fits["group"]
    fits["measures"] = [fits["measures"][3]]
    fits["outputs"] = [{"op": "histogram", "name": "h", "measure": 0}]
    assert Plan.parse(fits).slots == 2**20
    fits["group"] = {"column": "carrier", "values": ["AA", "UA"]}
    with pytest.raises(WireError, match="slots"):
        Plan.parse(fits)


def test_bounds_that_no_descriptor_can_hold_are_refused() -> None:
    """l2sq must stay below 2^53."""
    with pytest.raises(WireError, match="bounds"):
        Plan.parse(changed("measures.0.scale", 2**27))


@given(plans())
def test_canonical_bytes_and_plans_are_two_names_of_one_thing(document: dict[str, Any]) -> None:
    """Object, plan and bytes lead to each other without loss."""
    plan = Plan.parse(document)
    data = canonical_json(document)
    assert plan.encode() == data
    assert Plan.parse(data) == plan
    assert Plan.parse(plan.to_object()) == plan


@given(plans(), rows)
def test_no_vector_ever_exceeds_the_bounds_of_its_plan(
    document: dict[str, Any], table: list[dict[str, Any]]
) -> None:
    """Whatever the rows hold, linf and l2sq hold, and the length is that of the plan."""
    plan = Plan.parse(document)
    vector = [int(value) for value in plan.execute(table, first)]
    assert len(vector) == plan.slots
    assert all(abs(value) <= plan.linf for value in vector)
    assert sum(value * value for value in vector) <= plan.l2sq


@given(plans(), rows)
def test_a_vector_is_what_the_text_says(
    document: dict[str, Any], table: list[dict[str, Any]]
) -> None:
    """The library agrees with a second reading of section 15.2, slot by slot."""
    vector = Plan.parse(document).execute(table, first)
    assert vector.dtype == np.int64
    assert vector.tolist() == oracle(document, table)


def test_the_bounds_are_reached() -> None:
    """Section 15.3 is tight: R rows at the far end of every range, in one group, use all of it."""
    document = changed("rows_max", 3)
    del document["measures"][3], document["outputs"][2]
    plan = Plan.parse(document)
    vector = plan.execute([{"carrier": "UA", "far": 0, "delay": -4}] * 3, never)
    assert max(abs(int(value)) for value in vector) == plan.linf == 3 * 14
    assert sum(int(value) ** 2 for value in vector) == plan.l2sq == 9 * (100 + 196 + 100)


@given(plans())
def test_without_a_matching_row_the_vector_is_zero_and_just_as_long(
    document: dict[str, Any],
) -> None:
    """Nothing to say is said in as many words as something."""
    plan = Plan.parse(document)
    vector = plan.execute([], never)
    assert vector.shape == (plan.slots,)
    assert not vector.any()


@given(st.integers(1, 6), st.integers(0, 12), st.randoms(use_true_random=False))
def test_at_most_rows_max_rows_count_and_chance_says_which(
    rows_max: int, present: int, rng: random.Random
) -> None:
    """`choose` is asked for R of n only if there are more than R; the chosen rows are counted."""
    plan = Plan.parse(changed("rows_max", rows_max))
    asked: list[tuple[int, int]] = []

    def choose(n: int, k: int) -> Sequence[int]:
        asked.append((n, k))
        return rng.sample(range(n), k)

    table = [{"carrier": "AA", "far": 1}] * present + [{"carrier": "AA", "far": -1}]
    vector = plan.execute(table, choose)
    assert int(vector[0]) == 10 * min(rows_max, present)
    assert asked == ([(present, rows_max)] if present > rows_max else [])


def test_rows_of_a_group_without_slots_are_drawn_like_all_others() -> None:
    """The draw is over what satisfies `where`; the group is looked at afterwards."""
    plan = Plan.parse(GOOD)
    table = [{"carrier": "ZZ", "far": 1}, {"carrier": "AA", "far": 1}]
    assert not plan.execute(table, lambda n, k: [0]).any()
    assert plan.execute(table, lambda n, k: [1]).any()


def test_a_null_satisfies_no_condition() -> None:
    """Not even "is not"."""
    for value in (None, math.nan, True, "7"):
        plan = Plan.parse(changed("where.0", {"column": "far", "test": "ne", "value": 7}))
        assert not plan.execute([{"carrier": "AA", "far": value}], never).any()
    assert plan.execute([{"carrier": "AA", "far": 8}], never).any()


def test_numbers_are_rounded_down_not_towards_zero() -> None:
    """-0.5 is -1, in sums, bins and conditions."""
    plan = Plan.parse(changed("where.0", {"column": "delay", "test": "lt", "value": 0}))
    vector = plan.execute([{"carrier": "AA", "delay": -0.5, "far": 24.9}], never)
    assert vector[2] == 2 * (-1 - 3)
    assert vector[6] == 1


def test_a_count_agrees_with_the_sum_of_the_same_column() -> None:
    """Text where a number belongs adds to neither: otherwise it would count as the centre."""
    vector = Plan.parse(GOOD).execute([{"carrier": "AA", "far": 1, "delay": "12"}], never)
    assert vector[2] == 0
    assert vector[4] == 0


def test_slot_names_follow_the_layout() -> None:
    """Measure by measure, group by group, bin by bin."""
    names = Plan.parse(GOOD).slot_names()
    assert names[:4] == ("AA: count(*)", "UA: count(*)", "AA: sum(delay)", "UA: sum(delay)")
    assert names[-2:] == ("UA: histogram(far) 50..75", "UA: histogram(far) 75..100")
    assert len(names) == Plan.parse(GOOD).slots


def test_without_clamping_the_bounds_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for the bounds: with clamping off, one wild value exceeds them."""
    plan = Plan.parse(GOOD)
    table = [{"carrier": "AA", "far": 1, "delay": 10**6}]
    assert max(abs(int(v)) for v in plan.execute(table, never)) <= plan.linf
    monkeypatch.setattr(plan_module, "_clamp", lambda value, lo, hi: value)
    assert max(abs(int(v)) for v in plan.execute([{**table[0], "far": 1}], never)) > plan.linf
