"""Inputs of the vectors about plans: what rows become (docs/protocol.md sections 15.1 to 15.3)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from dandelion.encoding import parse_canonical_json
from dandelion.vectors.inputs import PLAN, Named

_HISTOGRAM: Final = {"measure": 0, "name": "h", "op": "histogram"}

Cases = dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[int]]]


def _plan() -> Named:
    base: dict[str, Any] = parse_canonical_json(PLAN)
    count = {"op": "count", "scale": 3}
    outputs = base["outputs"]
    grouped = base | {"group": {"column": "country", "values": ["DE", "FR"]}}
    histogram = base | {
        "measures": [
            {"bins": 3, "column": "load", "hi": 9, "lo": 0, "op": "histogram", "scale": 1}
        ],
        "outputs": [{"measure": 0, "name": "HISTOGRAM", "op": "histogram"}],
    }
    slow = base | {"where": [{"column": "load", "test": "ge", "value": 2}]}
    row: dict[str, Any] = {"country": "DE", "load": 4}
    valid: Cases = {
        "one row": (base, [row], [0]),
        "no rows": (base, [], []),
        "clamped above": (base, [row | {"load": 1000}], [0]),
        "clamped below": (base, [row | {"load": -1000}], [0]),
        "rounded down": (base, [row | {"load": -0.5}], [0]),
        "null": (base, [row | {"load": None}], [0]),
        "text where a number belongs": (base, [row | {"load": "4"}], [0]),
        "two rows, one counts": (base, [row, row | {"load": 0}], [1]),
        "two rows, both count": (base | {"rows_max": 2}, [row, row | {"load": 0}], [0, 1]),
        "a group": (grouped, [row | {"country": "FR"}], [0]),
        "a group value that has no slot": (grouped, [row | {"country": "XX"}], [0]),
        "a histogram": (histogram, [row], [0]),
        "the last bin holds the upper bound": (histogram, [row | {"load": 9}], [0]),
        "a condition that holds": (slow, [row], [0]),
        "a condition that does not": (slow, [row | {"load": 1}], [0]),
        "a condition on text": (
            base | {"where": [{"column": "country", "test": "ne", "value": "FR"}]},
            [row],
            [0],
        ),
    }
    valid |= _comparisons(base, row) | _measures(base, row)
    for name, (plan, rows, chosen) in valid.items():
        yield name, {"plan": plan, "rows": rows, "chosen": chosen}
    invalid: dict[str, dict[str, Any]] = {
        "an unknown field": base | {"code": "alert()"},
        "no measures": base | {"measures": []},
        "an unknown measure": base | {"measures": [{"op": "median", "scale": 1}]},
        "scale 0": base | {"measures": [{"op": "count", "scale": 0}], "outputs": outputs},
        "rows_max 0": base | {"rows_max": 0},
        "bins that do not divide": histogram
        | {"measures": [histogram["measures"][0] | {"bins": 2}]},
        "an output of no measure": base | {"outputs": [outputs[0] | {"measure": 9}]},
        "an output that is another measure's": base | {"outputs": [outputs[0] | {"measure": 1}]},
        "a group value twice": base | {"group": {"column": "country", "values": ["DE", "DE"]}},
        "an unknown test": base | {"where": [{"column": "load", "test": "like", "value": 2}]},
        "text compared by size": base
        | {"where": [{"column": "country", "test": "lt", "value": "FR"}]},
        "another kind": base | {"kind": "training"},
        "too many rows for so many measures": base
        | {"rows_max": 65_535, "measures": [*base["measures"], *[count] * 3]},
        "seventeen conditions": base
        | {"where": [{"column": "load", "test": "ge", "value": n} for n in range(17)]},
        "a delta that rounds to 1": base | {"delta": "0." + 40 * "9"},
        "an epsilon of 0": base | {"epsilon": "0.0"},
        "an epsilon that is no number": base | {"epsilon": "lots"},
        "a column that is not a name": base | {"measures": [count | {"column": 1}]},
    }
    invalid |= _wrong(base, outputs[0])
    for name, plan in invalid.items():
        yield name, {"plan": plan, "rows": [row], "chosen": [0]}


def _comparisons(base: dict[str, Any], row: dict[str, Any]) -> Cases:
    """Every test below, at and above its value; nulls; mixed types; two conditions."""
    cases: Cases = {}
    for test in ("eq", "ne", "lt", "le", "gt", "ge"):
        where = [{"column": "load", "test": test, "value": 4}]
        for load in (3, 4, 5):
            cases[f"{load} {test} 4"] = (base | {"where": where}, [row | {"load": load}], [0])
    never = base | {"where": [{"column": "load", "test": "ne", "value": 4}]}
    text = base | {"where": [{"column": "country", "test": "ne", "value": "FR"}]}
    two = [{"column": "load", "test": test, "value": 4} for test in ("ge", "lt")]
    return cases | {
        "a null satisfies nothing, not even ne": (never, [row | {"load": None}], []),
        "an absent column satisfies nothing": (never, [{"country": "DE"}], []),
        "a number does not satisfy ne of a text": (text, [row | {"country": 4}], []),
        "minus zero is zero": (
            base | {"where": [{"column": "load", "test": "eq", "value": 0}]},
            [row | {"load": -0.0}],
            [],
        ),
        "the second condition fails": (base | {"where": two}, [row], []),
        "more rows than R of which one satisfies where": (
            base | {"where": [{"column": "load", "test": "ge", "value": 4}]},
            [row | {"load": 0}, row | {"load": 5}, row | {"load": 1}],
            [],
        ),
        "indices count the rows that satisfy where": (
            base | {"where": [{"column": "load", "test": "ge", "value": 4}]},
            [row | {"load": 0}, row | {"load": 4}, row | {"load": 5}],
            [1],
        ),
    }


def _measures(base: dict[str, Any], row: dict[str, Any]) -> Cases:
    """Scales, centres off the middle, bins at their edges, counts of a column."""

    def asking(op: str, **fields: object) -> dict[str, Any]:
        measure = {"column": "load", "op": op} | fields
        output = {"measure": 0, "name": op, "op": op}
        if op == "sum":
            counted = {"column": "load", "op": "count", "scale": 1}
            return base | {
                "measures": [measure, counted],
                "outputs": [output | {"count": 1}, output | {"count": 1, "name": "a", "op": "avg"}],
            }
        return base | {"measures": [measure], "outputs": [output]}

    count = {"op": "count", "scale": 1}
    low = asking("sum", scale=3, lo=-10, hi=30, centre=-8)
    high = asking("sum", scale=3, lo=-10, hi=30, centre=28)
    bins = asking("histogram", scale=2, lo=10, hi=40, bins=3)
    counted = asking("count", scale=2)
    cases: Cases = {
        "a sum with a centre near lo": (low, [row | {"load": 29.9}], [0]),
        "a sum with a centre near hi": (high, [row | {"load": -10}], [0]),
        "a count of a column": (counted, [row], [0]),
        "a count of a column that is null": (counted, [row | {"load": None}], [0]),
        "a count of a column that holds text": (counted, [row | {"load": "x"}], [0]),
        "a count of a column that holds a truth value": (counted, [row | {"load": True}], [0]),
        "a histogram in a group": (
            bins | {"group": {"column": "country", "values": ["FR", "DE"]}},
            [row | {"load": 25}],
            [0],
        ),
        "the longest decimal numbers": (
            base | {"delta": 20 * "0" + "." + 39 * "0" + "1e-99", "epsilon": 20 * "9" + "e99"},
            [row],
            [],
        ),
        "no conditions": (base | {"where": []}, [row], []),
        "columns that objects of some languages have": (
            asking("count", scale=1) | {"measures": [count | {"column": "constructor"}]},
            [row],
            [],
        ),
        "the most rows that count": (base | {"rows_max": 65_535}, [row, row], []),
    }
    wide = base | {"measures": [_wide(2)], "outputs": [_HISTOGRAM]}
    for far in (1 - 2**53, -1, -0.5, 0, 2**53 - 1):
        cases[f"{far} in a range of more than 2^53"] = (wide, [row | {"load": far}], [])
    # Six bins: an offset from the lower bound is odd beyond 2^53 just below the fourth edge.
    lowest, step = 3 - 2**53, (2**54 - 4) // 6
    six = wide | {"measures": [_wide(6) | {"lo": lowest}]}
    for name, far in (("below", lowest + 4 * step - 1), ("at", lowest + 4 * step)):
        cases[f"{name} the fourth edge of six far ones"] = (six, [row | {"load": far}], [])
    for load in (-5, 10, 19.9, 20, 39, 40, 99, None):
        cases[f"a histogram of {load}"] = (bins, [row | {"load": load}], [0])
    return cases


def _wide(bins: int) -> dict[str, Any]:
    """A histogram whose range, 2^54 - 2 wide, no double holds to the last bit."""
    bounds = {"hi": 2**53 - 1, "lo": 1 - 2**53}
    return {"bins": bins, "column": "load", "op": "histogram", "scale": 1} | bounds


def _wrong(base: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One rule of section 15 broken at a time."""
    summed = {"centre": 2, "column": "load", "hi": 5, "lo": -1, "op": "sum", "scale": 1}
    return {
        "rows_max 65536": base | {"rows_max": 65_536},
        "no outputs": base | {"outputs": []},
        "an empty name": base | {"outputs": [output | {"name": ""}]},
        "an index below 0": base | {"outputs": [output | {"measure": -1}]},
        "an unknown field in a measure": base
        | {"measures": [base["measures"][0] | {"code": 1}, base["measures"][1]]},
        "lo not below hi": base | {"measures": [base["measures"][0], summed | {"lo": 5}]},
        "a centre outside": base | {"measures": [base["measures"][0], summed | {"centre": 6}]},
        "a negative scale": base | {"measures": [{"op": "count", "scale": -1}]},
        "an average without its count": base
        | {"outputs": [{"count": 0, "measure": 1, "name": "a", "op": "avg"}]},
        "no group values": base | {"group": {"column": "country", "values": []}},
        "delta 0": base | {"delta": "0"},
        "41 digits after the point": base | {"epsilon": "1." + 41 * "0"},
        "21 digits before the point": base | {"epsilon": 20 * "0" + "1"},
        "an exponent of three digits": base | {"epsilon": "1e001"},
        "an exponent with a plus": base | {"delta": "1e+8"},
        "a number without digits before the point": base | {"epsilon": ".5"},
        "a group that is 0": base | {"group": 0},
        "a group that is an empty text": base | {"group": ""},
        "conditions that are an empty text": base | {"where": ""},
        "an op inside an array": base | {"measures": [{"op": ["count"], "scale": 1}]},
        "the op of a histogram inside an array": base
        | {"measures": [base["measures"][0], _wide(2) | {"op": ["histogram"]}]},
        "more slots than allowed": base
        | {
            "group": {"column": "country", "values": ["DE", "FR"]},
            "measures": [_wide(2**19 + 1) | {"hi": 2**19 + 1, "lo": 0}],
            "outputs": [_HISTOGRAM],
        },
        "a histogram of no width": base
        | {"measures": [_wide(1) | {"hi": 4, "lo": 4}], "outputs": [_HISTOGRAM]},
        "a sum of no width": base
        | {"measures": [base["measures"][0], summed | {"centre": 2, "hi": 2, "lo": 2}]},
        "an average over another sum": base
        | {"outputs": [{"count": 1, "measure": 1, "name": "a", "op": "avg"}]},
        "a test inside an array": base
        | {"where": [{"column": "load", "test": ["eq"], "value": 4}]},
        "an epsilon inside an array": base | {"epsilon": ["8"]},
        "bins that only seem to divide": base
        | {"measures": [_wide(4) | {"lo": 2 - 2**53}], "outputs": [_HISTOGRAM]},
        "a field missing": {k: v for k, v in base.items() if k != "sql"},
    }


PLAN_INPUTS: Final[Mapping[str, Callable[[], Named]]] = {"plan": _plan}
