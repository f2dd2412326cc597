"""Cells of a release as rows for a person."""

import math
from collections.abc import Mapping, Sequence

Cell = Mapping[str, object]


def number(value: object, error: object = None) -> str:
    """A number rounded to where its standard error begins to matter; a dash for none."""
    if not isinstance(value, int | float):
        return "-"
    digits = 2
    if isinstance(error, int | float) and error > 0:
        digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{min(digits, 6)}f}"


def table_rows(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a result table; truth beside the estimate where it is known."""
    grouped = any(cell.get("group") is not None for cell in cells)
    with_truth = any("truth" in cell for cell in cells)
    columns = ["group"] if grouped else []
    columns += ["column"]
    columns += [">truth"] if with_truth else []
    columns += [">estimate", ">std error", ">95 % interval"]
    columns += ["inside"] if with_truth else []
    rows = []
    for cell in cells:
        error = cell.get("std_error")
        name = str(cell["name"])
        if isinstance(bin_ := cell.get("bin"), list | tuple):
            name = f"{bin_[0]:,} to {bin_[1]:,}"
        row = [str(cell["group"])] if grouped else []
        row += [name]
        row += [number(cell["truth"], error)] if with_truth else []
        if cell.get("withheld"):
            row += ["withheld", "", str(cell.get("reason", ""))]
        else:
            interval = f"{number(cell['ci_low'], error)} .. {number(cell['ci_high'], error)}"
            row += [number(cell["estimate"], error), number(error, error), interval]
        if with_truth:
            row += [_inside(cell)]
        rows.append(row)
    return columns, rows


def _inside(cell: Cell) -> str:
    low, high, truth = cell.get("ci_low"), cell.get("ci_high"), cell.get("truth")
    if not all(isinstance(value, int | float) for value in (low, high, truth)):
        return ""
    return "yes" if low <= truth <= high else "no"  # type: ignore[operator]
