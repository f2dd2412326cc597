"""Random plans, and rows that fit them more or less."""

from datetime import date
from typing import Any

from hypothesis import strategies as st

COLUMNS = ("alpha", "beta", "gamma", "delta")
WORDS = ("AA", "BB", "CC", "", 'é\u2028"')

bounds = st.tuples(st.integers(-500, 500), st.integers(1, 400)).map(lambda p: (p[0], p[0] + p[1]))


@st.composite
def measures(draw: st.DrawFn) -> dict[str, Any]:
    """One measure of section 15.2."""
    op = draw(st.sampled_from(("count", "count of", "sum", "histogram")))
    scale = draw(st.integers(1, 50))
    column = draw(st.sampled_from(COLUMNS))
    if op == "count":
        return {"op": "count", "scale": scale}
    if op == "count of":
        return {"op": "count", "scale": scale, "column": column}
    lo, hi = draw(bounds)
    if op == "sum":
        centre = draw(st.integers(lo, hi))
        return {
            "op": "sum",
            "scale": scale,
            "column": column,
            "lo": lo,
            "hi": hi,
            "centre": centre,
        }
    bins = draw(st.integers(1, 12))
    step = draw(st.integers(1, 30))
    return {
        "op": "histogram",
        "scale": scale,
        "column": column,
        "lo": lo,
        "hi": lo + bins * step,
        "bins": bins,
    }


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """One condition."""
    column = draw(st.sampled_from(COLUMNS))
    if draw(st.booleans()):
        return {
            "column": column,
            "test": draw(st.sampled_from(("eq", "ne"))),
            "value": draw(st.sampled_from(WORDS)),
        }
    test = draw(st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge")))
    return {"column": column, "test": test, "value": draw(st.integers(-500, 500))}


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """A plan object of section 15.1. Outputs are whatever its measures allow."""
    parts = draw(st.lists(measures(), min_size=1, max_size=4))
    # A sum is of use to an output together with the count of its column.
    parts += [
        {"op": "count", "scale": draw(st.integers(1, 50)), "column": part["column"]}
        for part in parts
        if part["op"] == "sum"
    ]
    outputs: list[dict[str, Any]] = []
    for index, part in enumerate(parts):
        if part["op"] != "sum":
            outputs.append({"op": part["op"], "name": f"out {index}", "measure": index})
            continue
        pair = next(
            i
            for i, p in enumerate(parts)
            if p["op"] == "count" and p.get("column") == part["column"]
        )
        for op in ("sum", "avg"):
            outputs.append({"op": op, "name": f"{op} {index}", "measure": index, "count": pair})
    plan: dict[str, Any] = {
        "kind": "aggregate",
        "query": "random",
        "sql": "SELECT …",
        "event": "thing",
        "epsilon": "1",
        "delta": "1e-8",
        "rows_max": draw(st.integers(1, 5)),
        "measures": parts,
        "outputs": outputs,
    }
    if draw(st.booleans()):
        values = draw(st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
        plan["group"] = {"column": draw(st.sampled_from(COLUMNS)), "values": values}
    where = draw(st.lists(conditions(), max_size=2))
    if where:
        plan["where"] = where
    return plan


values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(WORDS),
    st.integers(-600, 600),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-600, 600),
)

rows = st.lists(st.dictionaries(st.sampled_from(COLUMNS), values), max_size=12)

# Among them words of YAML, of Python, of the registry itself, and names that differ in little.
names = st.sampled_from(
    (
        "a",
        "a_b",
        "a__b",
        "ab_",
        "class",
        "none",
        "null",
        "yes",
        "number",
        "category",
        "columns",
        "kind",
    )
)
days = st.dates(date(2000, 1, 1), date(2100, 1, 1)).map(date.isoformat)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
about = {
    "description": texts,
    "owner": texts,
    "expires": days,
    "review": names.map(lambda name: f"https://example.com/{name}"),
}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """One declared column."""
    said: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=about))
    if draw(st.booleans()):
        values = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
        return {"kind": "category", "values": values} | said
    lo, hi = draw(bounds)
    return {"kind": "number", "lo": lo, "hi": hi} | said


@st.composite
def registry_objects(draw: st.DrawFn) -> dict[str, Any]:
    """A registry as JSON."""
    event = st.fixed_dictionaries(
        {"columns": st.dictionaries(names, columns(), min_size=1, max_size=3)},
        optional=about | {"rows_max_default": st.integers(1, 65_535), "unit": st.just("client")},
    )
    return {"events": draw(st.dictionaries(names, event, min_size=1, max_size=2))}
