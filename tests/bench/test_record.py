"""The record of measurements, its table and the plots: what is committed agrees, promises judge."""

from pathlib import Path

import pytest

from tests.bench import plots, record, table
from tests.bench.record import RESULTS, Figure, Result, Run, paired_ratio, results
from tests.bench.svg import Panel, Series, draw, slope


def test_the_page_shows_the_committed_record() -> None:
    """docs/performance.md holds the tables that the record makes; `make bench` writes both."""
    made = "\n".join(table.tables(results()))
    text = table.PAGE.read_text("utf-8")
    assert table.between(text, table.BEGIN, table.END, made) == text


def test_the_plots_and_their_slopes_are_those_of_the_committed_data() -> None:
    """Drawing anew changes neither the plots nor what the page says of them."""
    costs = plots.read()
    for name, drawn in plots.plots(costs).items():
        assert (plots.DOCS / name).read_text("utf-8") == drawn, name
    text = table.PAGE.read_text("utf-8")
    assert table.between(text, plots.BEGIN, plots.END, plots.words(costs)) == text


def test_a_line_of_the_record_is_read_as_it_was_written() -> None:
    """Every committed line is what its result writes again."""
    lines = RESULTS.read_text("utf-8").splitlines(keepends=True)
    assert [Result.parse(line).line() for line in lines] == lines


def test_a_result_goes_to_the_end_of_the_record(tmp_path: Path) -> None:
    """The circumstances are those of the beginning; earlier lines stay."""
    to = tmp_path / "record.ndjson"
    to.write_text("")
    run = Run.begin("trial")
    for rate in (100.0, 200.0):
        run.record({"slots": 4}, {"rate": Figure.of(rate, "reports/s")}, to=to)
    first, second = results(to)
    assert (first.figures["rate"].median, second.figures["rate"].median) == (100, 200)
    assert first.commit == second.commit
    assert "cores" in first.machine


@pytest.mark.parametrize(
    "promise, ratio, held",
    [
        (">= 0.85", 0.85, True),
        (">= 0.85", 0.84, False),
        ("<= 1.3", 1.31, False),
        ("< 250", 250, False),
        ("> 1", 1.5, True),
    ],
)
def test_a_promise_is_of_the_ratio(promise: str, ratio: float, held: bool) -> None:
    """A ratio that misses its bound is told, whatever the absolute figure is."""
    assert Figure.of(7.0, "us", ratio=ratio, promise=promise).held is held


def test_a_promise_without_a_ratio_is_of_the_median() -> None:
    """Memory has no baseline: the figure itself is held against the promise."""
    assert Figure.of([400, 600, 450], "MB", promise="< 500").held is True
    assert Figure.of([400, 600, 550], "MB", promise="< 500").held is False


def test_a_promise_that_cannot_be_judged_is_refused() -> None:
    """A slip in a promise must not read as one that holds."""
    with pytest.raises(ValueError, match="promise"):
        Figure.of(1.0, "x", promise="at least 2")


def test_samples_taken_in_turns_are_compared_pair_by_pair() -> None:
    """A machine that slows down for both leaves the ratio as it is."""
    assert paired_ratio([1, 10, 4], [2, 20, 8]) == 0.5


def test_only_the_newest_line_of_the_same_question_is_shown() -> None:
    """The same benchmark with the same parameters replaces; other parameters stand beside."""
    run = Run("trial", "c0ffee", "today", "here", 0.0)
    lines = [
        run.record({"slots": slots}, {"rate": Figure.of(rate, "reports/s")}, to=None)
        for slots, rate in ((4, 1.0), (8, 2.0), (4, 3.0))
    ]
    shown = table.newest(lines)
    assert [it.figures["rate"].median for it in shown] == [3.0, 2.0]


def test_a_page_without_its_markers_is_left_alone(tmp_path: Path) -> None:
    """Nothing is written where it is unclear what would be replaced."""
    page = tmp_path / "page.md"
    page.write_text(f"{table.END} text {table.BEGIN}")
    with pytest.raises(ValueError, match="once each"):
        table.rewrite(page, [])
    assert page.read_text() == f"{table.END} text {table.BEGIN}"


def test_a_broken_promise_stands_out_in_the_table() -> None:
    """The table says in bold what does not hold."""
    run = Run("trial", "c0ffee", "today", "here", 0.0)
    figure = Figure.of(1.0, "reports/s", ratio=0.5, promise=">= 0.85")
    text = "\n".join(table.tables([run.record({}, {"rate": figure}, to=None)]))
    assert "**does not hold**" in text


def test_a_power_law_has_its_power_as_slope() -> None:
    """y = 3 x^1.5 has slope 1.5 whatever the points."""
    assert slope([(x, 3 * x**1.5) for x in (1, 7, 50, 2_000)]) == pytest.approx(1.5)


def test_points_of_a_plot_lie_where_their_logarithms_do() -> None:
    """Between 1 and 100, the point 10 is in the middle of both axes."""
    text = draw("t", "d", [Panel("p", "x", "y", [Series("s", [(1, 1), (10, 10), (100, 100)])])])
    centres = [line.split('"')[1:4:2] for line in text.splitlines() if "<circle" in line]
    (x0, y0), (x1, y1), (x2, y2) = ((float(a), float(b)) for a, b in centres)
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert y1 == pytest.approx((y0 + y2) / 2)
    assert y0 > y2


def test_changed_files_of_the_product_mark_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of code that was never committed says so; changed tests and texts do not matter."""
    said = {"rev-parse": "c0ffee", "status": " M collector/node.py"}
    monkeypatch.setattr(record, "_git", lambda *arguments: said[arguments[0]])
    assert record.commit() == "c0ffee+"
    said["status"] = ""
    assert record.commit() == "c0ffee"
