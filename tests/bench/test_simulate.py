"""The benchmark of simulations in small: both ways agree, and the promises are judged."""

import pytest

from dandelion.queries.columns import Ints, sums
from tests.bench import bench_simulate


def test_both_ways_of_adding_up_agree() -> None:
    """A thousand clients; the whole simulation is far below what is promised for a million."""
    figures = bench_simulate.measure(clients=1_000, one_by_one=300, repeats=2)
    assert figures["whole simulation"].held is True
    assert figures["one client after the other"].samples == 2


def test_a_wrong_sum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: one slot more, and there are no figures."""

    def wrong(*given: object) -> Ints:
        return sums(*given) + 1  # type: ignore[arg-type]

    monkeypatch.setattr(bench_simulate, "sums", wrong)
    with pytest.raises(AssertionError):
        bench_simulate.measure(clients=10, one_by_one=10, repeats=1)
