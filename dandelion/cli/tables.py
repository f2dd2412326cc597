"""Cells of a release as tables for a person: one table for each column that was asked for."""

import math
from collections.abc import Iterator, Mapping, Sequence

from dandelion.cli.output import out, print_table

Cell = Mapping[str, object]


def number(value: object, error: object = None) -> str:
    """A number rounded to where its standard error begins to matter; a dash for none."""
    if not isinstance(value, int | float):
        return "-"
    digits = 2
    if isinstance(error, int | float) and error > 0:
        digits = min(6, max(0, -math.floor(math.log10(error))))
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def print_cells(cells: Sequence[Cell], group: object = None) -> None:
    """Prints one table for each column of the answer; truth beside the estimate if it is known."""
    for name in dict.fromkeys(str(cell["name"]) for cell in cells):
        chosen = [cell for cell in cells if cell["name"] == name]
        keys = [
            (str(group or "group"), "group", any(c.get("group") is not None for c in chosen)),
            ("bin", "bin", any(c.get("bin") for c in chosen)),
        ]
        shown = [(title, field) for title, field, there in keys if there]
        with_truth = any("truth" in cell for cell in chosen)
        columns = [title for title, _ in shown] + ([">truth"] if with_truth else [])
        columns += [">estimate", ">std error", ">95 % from", ">to"]
        columns += ["holds truth"] if with_truth else []
        rows = [
            [_key(cell[field]) for _, field in shown] + list(_numbers(cell, with_truth))
            for cell in chosen
        ]
        print_table(name, columns, rows)
        for reason in {str(cell["reason"]) for cell in chosen if cell.get("withheld")}:
            out.print(f"  withheld: {reason}\n")


def _numbers(cell: Cell, with_truth: bool) -> Iterator[str]:
    error = cell.get("std_error")
    if with_truth:
        yield number(cell.get("truth"), error)
    if cell.get("withheld"):
        yield from ("withheld", "", "", "")
    else:
        yield from (number(cell[field], error) for field in ("estimate", "std_error"))
        yield from (number(cell[field], error) for field in ("ci_low", "ci_high"))
    if with_truth:
        yield _holds(cell)


def _key(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"{value[0]:,} to {value[1]:,}"
    return "" if value is None else str(value)


def _holds(cell: Cell) -> str:
    low, high, truth = cell.get("ci_low"), cell.get("ci_high"), cell.get("truth")
    if not all(isinstance(value, int | float) for value in (low, high, truth)):
        return ""
    return "yes" if low <= truth <= high else "no"  # type: ignore[operator]
