"""Random plans with rows, plan bytes and tables (docs/protocol.md 3.3, 15)."""

import json
import random
from collections.abc import Mapping
from typing import Any, Final

from dandelion.encoding import canonical_json
from dandelion.errors import DandelionError
from dandelion.params import INTEGER_END as END
from dandelion.queries.decode import decode
from dandelion.queries.plan import Plan

Case = dict[str, Any]

# Names that an object of JavaScript answers to by itself, and characters that sort or count
# differently there.
NAMES: Final = (
    "load", "country", "x", "__proto__", "constructor", "toString", "length", "0", "a b", "é",
    "\U0001f33c", "\uffff", "\u2028", '"', "\\", "\x7f", "\x1f", "e\u0301",
)  # fmt: skip
VALUES: Final = (*NAMES, "", "DE", "FR", "4", "true", "null", "NaN")
INTEGERS: Final = (0, 1, -1, 2, 3, 4, 5, 7, 100, -100, 2**31, -(2**31), END - 1, 1 - END)
TESTS: Final = ("eq", "ne", "lt", "le", "gt", "ge")
OPS: Final = ("count", "sum", "avg", "histogram")


def plans(rng: random.Random) -> Case:
    """A plan, most often valid, with the rows of one client; sometimes with a fault in it."""
    document = plan_object(rng)
    if rng.random() < 0.2:
        mutate_object(rng, document)
    data = loose_bytes(document)
    rows = [row(rng, document) for _ in range(rng.choice((0, 1, 1, 2, 3, 8)))]
    return run_plan(rng, data, rows)


def run_plan(rng: random.Random, data: bytes, rows: list[dict[str, Any]]) -> Case:
    """The case of plan bytes and rows: the vector, or the token."""
    chosen: list[int] = []

    def choose(n: int, k: int) -> list[int]:
        chosen.extend(rng.sample(range(n), k))
        return chosen

    case: Case = {"plan": data.hex(), "rows": [travelling(each) for each in rows]}
    try:
        plan = Plan.parse(data)
        # Long vectors take long to write down and show nothing new.
        vector = plan.execute(rows, choose).tolist() if plan.slots <= 512 else None
    except DandelionError as error:
        return case | {"expect": error.token}
    derived = {"slots": plan.slots, "linf": plan.linf, "l2sq": plan.l2sq}
    return case | {"expect": "valid", "chosen": chosen, "vector": vector} | derived


def plan_bytes(rng: random.Random) -> Case:
    """Canonical bytes in which a few bytes were changed."""
    data = bytearray(canonical_json(plan_object(rng)))
    pieces = (
        b" ", b"\n", b"\xef\xbb\xbf", b"-0", b"1e5", b"1.0", b"00", b"9007199254740993", b"\\/",
        b"\\u0041", b"\\u001f", b"\\u001F", b"\\b", b"\\ud800", b"\\ud83c\\udf3c", b"\xed\xa0\x80",
        b"\xc0\xaf", b"\x7f", b"\xe2\x80\xa8", b"\xf4\x90\x80\x80", b"\xd9\xa1", b"null", b"true",
        b"NaN", b"{}", b"[[[[[[[[", b'"a":1,', b'"__proto__":1,', b",", b'""', b"\x00",
    )  # fmt: skip
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at:at] = rng.choice(pieces)
            case 1:
                del data[at : at + rng.choice((1, 1, 2, 9))]
            case 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[other : other + rng.randrange(20)]
    return run_plan(rng, bytes(data), [])


def plan_object(rng: random.Random) -> dict[str, Any]:
    """A plan of section 15.1 that is valid unless its bounds grow too large."""
    measures = [measure(rng) for _ in range(rng.choice((1, 1, 2, 3, 5)))]
    outputs: list[Any] = []
    for index, each in enumerate(measures):
        name = rng.choice(NAMES)
        if each["op"] != "sum":
            outputs.append({"measure": index, "name": name, "op": each["op"]})
            continue
        counted = {"column": each["column"], "op": "count", "scale": rng.choice((1, 3))}
        if counted not in measures:
            measures.append(counted)
        op = rng.choice(("sum", "avg"))
        count = measures.index(counted)
        outputs.append({"count": count, "measure": index, "name": name, "op": op})
    document: dict[str, Any] = {
        "delta": rng.choice(("1e-8", "0.5", "0.00001", "9e-99", "0." + 16 * "9")),
        "epsilon": rng.choice(("1", "0.5", "8", "1e3", "0.001")),
        "event": rng.choice(NAMES),
        "kind": "aggregate",
        "measures": measures,
        "outputs": outputs,
        "query": rng.choice(NAMES),
        "rows_max": rng.choice((*(1, 1, 2, 3, 10) * 3, 65_535)),
        "sql": rng.choice(NAMES),
    }
    if rng.random() < 0.5:
        values = rng.sample(VALUES, rng.choice((1, 2, 5)))
        document["group"] = {"column": rng.choice(NAMES[:6]), "values": values}
    if rng.random() < 0.5:
        document["where"] = [condition(rng) for _ in range(rng.choice((*(0, 1, 1, 2) * 4, 16, 17)))]
    return document


def measure(rng: random.Random) -> dict[str, Any]:
    """One measure of section 15.2."""
    scale = rng.choice((1,) * 20 + (2, 3, 1000, 2**26, 2**40))
    column = rng.choice(NAMES[:6])
    op = rng.choice(("count", "sum", "histogram"))
    if op == "count":
        return {"op": op, "scale": scale} | ({"column": column} if rng.random() < 0.6 else {})
    lo, hi = sorted(rng.sample(INTEGERS, 2)) if rng.random() < 0.15 else (rng.randint(-9, 0), 9)
    if op == "sum":
        centre = rng.choice((lo, hi, (lo + hi) // 2, rng.randint(lo, hi)))
        return {"centre": centre, "column": column, "hi": hi, "lo": lo, "op": op, "scale": scale}
    divisors = [bins for bins in (1, 2, 3, 5, 6, 9, 10, 255, 1 << 12) if (hi - lo) % bins == 0]
    bins = rng.choice((*divisors * 4, 4))
    return {"bins": bins, "column": column, "hi": hi, "lo": lo, "op": op, "scale": scale}


def condition(rng: random.Random) -> dict[str, Any]:
    """One condition."""
    column = rng.choice(NAMES[:6])
    if rng.random() < 0.4:
        value = rng.choice(VALUES)
        return {"column": column, "test": rng.choice(("eq", "ne")), "value": value}
    return {"column": column, "test": rng.choice(TESTS), "value": rng.choice(INTEGERS)}


def row(rng: random.Random, document: Mapping[str, Any]) -> dict[str, Any]:
    """An event with values of every kind, most of them near the bounds of the plan."""
    near = [0, 4, 9]
    texts: list[Any] = ["DE"]
    for part in (document.get("measures"), document.get("where")):
        for each in part if isinstance(part, list) else ():
            if isinstance(each, dict):
                near += [v for k in ("lo", "hi", "value") if type(v := each.get(k)) is int]
                texts += [v for v in (each.get("value"),) if isinstance(v, str)]
    group = document.get("group")
    if isinstance(group, dict) and isinstance(group.get("values"), list):
        texts += [v for v in group["values"] if isinstance(v, str)] * 3
    made: dict[str, Any] = {}
    for name in NAMES[:6]:
        match rng.randrange(8):
            case 0 | 1:
                made[name] = rng.choice(near) + rng.choice((-1, 0, 0, 1))
            case 2:
                made[name] = float(rng.choice(near)) + rng.choice((-0.5, 0.25, 0.999, 1e-9, 0.0))
            case 3 | 4 | 5:
                made[name] = rng.choice(texts)
            case 6:
                odd: tuple[Any, ...] = (
                    None, True, False, -0.0, 5e-324, -5e-324, 1e308, -1e308, float("nan"), [],
                    float("inf"), -float("inf"), 2**60, -(2**60), 1.5 * 2**52, {"load": 4}, [4],
                )  # fmt: skip
                made[name] = rng.choice(odd)
    return made


def travelling(source: Mapping[str, Any]) -> list[list[Any]]:
    """A row as JSON can carry it: pairs, and floats that are not finite by their names."""
    return [
        [name, value, str(value)]
        if not isinstance(value, float) or abs(value) < float("inf")
        else [name, None, str(value)]
        for name, value in source.items()
    ]


def mutate_object(rng: random.Random, document: dict[str, Any]) -> None:
    """Replaces, removes or adds something, somewhere."""
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        inner = [key for key in keys if isinstance(node[key], dict | list)]
        if not inner or rng.random() < 0.3:
            break
        node = node[rng.choice(inner)]
    fresh: Any = rng.choice(
        (0, 1, -1, 2, 17, 65_535, 65_536, END - 1, END, -END, 1.5, True, None, "", "x", "eq", "sum",
         "count", "scale=count", [], ["count"], ["eq"], {}, {"a": {"a": [[[[[1]]]]]}}, "1e-8", "1",
         "0", "01", ".5", "1.", "1e+1", "1e100", "9" * 20, "9" * 21, "0." + "9" * 40, "é", "٣")
    )  # fmt: skip
    if keys and rng.random() < 0.6:
        node[rng.choice(keys)] = fresh
    elif keys and rng.random() < 0.5:
        del node[rng.choice(keys)]
    elif isinstance(node, list):
        node.append(rng.choice(node) if node else fresh)
    else:
        node[rng.choice(("column", "scale", "group", "where", "count", "a", "__proto__", "A"))] = (
            fresh
        )


def loose_bytes(document: object) -> bytes:
    """As `canonical_json`, but whatever the document holds."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def tables(rng: random.Random) -> Case:
    """A plan, released sums, and the table they become."""
    while True:
        data = loose_bytes(plan_object(rng))
        try:
            plan = Plan.parse(data)
        except DandelionError:
            continue
        if plan.slots <= 200:
            break
    reach = rng.choice((1, 1000, 2**31, END))
    sums = [rng.randint(-reach // 9, reach) for _ in range(plan.slots)]
    noise_var = rng.choice((0, 1, 50, 10**6, 10**12))
    table = decode(plan, sums, 1, noise_var)
    return {"plan": data.hex(), "sums": sums, "noise_var": noise_var, "cells": table.to_rows()}
