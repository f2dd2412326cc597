"""The record as a table of docs/performance.md: ``python -m tests.bench.table`` writes it anew.

For each benchmark and set of parameters the newest line of the record counts; the older ones stay
in the file. A test holds the committed page against the committed record.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench.record import ROOT, Figure, Result, results

PAGE: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- results.ndjson: python -m tests.bench.table writes what follows -->"
END: Final = "<!-- end of results.ndjson -->"


def main() -> None:
    if rewrite():
        print(f"{PAGE.relative_to(ROOT)} was rewritten")


def rewrite(page: Path = PAGE, record: Sequence[Result] | None = None) -> bool:
    """Writes the tables between the two markers; whether anything changed.

    Raises:
        ValueError: as `between`.
    """
    text = page.read_text("utf-8")
    made = "\n".join(tables(results() if record is None else record))
    written = between(text, BEGIN, END, made)
    if written == text:
        return False
    page.write_text(written, "utf-8")
    return True


def between(text: str, begin: str, end: str, made: str) -> str:
    """The text with `made` between two markers.

    Raises:
        ValueError: the text does not have both, once each and in this order.
    """
    parts = text.split(begin)
    if len(parts) != 2 or parts[1].count(end) != 1 or end in parts[0]:
        raise ValueError(f"there must be both {begin} and {end}, once each")
    return f"{parts[0]}{begin}\n\n{made.strip()}\n\n{end}{parts[1].split(end)[1]}"


def newest(record: Sequence[Result]) -> list[Result]:
    """The last result of each benchmark and set of parameters, benchmarks in order of the alphabet
    and parameters in order of their first appearance.
    """
    found: dict[tuple[str, str], Result] = {}
    for result in record:
        found[result.benchmark, _given(result)] = result
    return sorted(found.values(), key=lambda result: result.benchmark)


def tables(record: Sequence[Result]) -> Iterator[str]:
    """One Markdown table for each result."""
    for result in newest(record):
        given = _given(result)
        load = "" if result.load is None else f", load at start {result.load:g}"
        yield f"**{result.benchmark}**{': ' if given else ''}{given}."
        yield f"{result.date}, commit {result.commit}, {result.machine}{load}."
        yield ""
        yield "| | median (lowest to highest) | ratio to the baseline | promise |"
        yield "| --- | --- | --- | --- |"
        for name, figure in result.figures.items():
            yield f"| {name} | {_value(figure)} | {_ratio(figure)} | {_promise(figure)} |"
        yield ""


def number(value: float) -> str:
    """Three significant digits, more for what counts in thousands."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _given(result: Result) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in result.parameters.items()
    )


def _value(figure: Figure) -> str:
    text = f"{number(figure.median)} {figure.unit}"
    if figure.samples > 1:
        text += f" ({number(figure.low)} to {number(figure.high)}; {figure.samples})"
    return text


def _ratio(figure: Figure) -> str:
    return "" if figure.ratio is None else f"{figure.ratio:.2f}"


def _promise(figure: Figure) -> str:
    if figure.promise is None:
        return ""
    return f"{figure.promise}: {'holds' if figure.held else '**does not hold**'}"


if __name__ == "__main__":
    main()
