"""The long runs in small: `make million` with 300 clients, `make soak` for a few seconds."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.bench import million, soak
from tests.bench.record import Run


def test_a_million_in_small_is_exact_and_split_by_stage() -> None:
    """All stages happen, in their order; every promise of the run is judged."""
    options = million.Options(clients=300, generators=1, connections=16, spare_s=2)
    with TemporaryDirectory(prefix="m-") as folder:
        ran = million.measure(options, Path(folder))
    assert [stage.name for stage in ran.stages] == [
        "make reports",
        "ingest",
        "wait for closing time",
        "seal",
        "ask and unmask",
        "release",
        "verify",
    ]
    assert ran.outcomes.counts == {"accepted": 300}
    assert {"collector", "store", "helper-1", "helper-2", "generator-1"} <= ran.peaks_mb.keys()
    million.show(ran)
    found = Run.begin("million").record({}, million.figures(options, ran), to=None).figures
    assert found["collector, peak memory"].held is True
    assert found["store, peak memory"].held is True


def test_a_soak_in_small_releases_every_round_exactly() -> None:
    """Two pairs of overlapping rounds at a low rate: each is checked, and each promise judged."""
    options = soak.Options(
        minutes=1 / 30, rate=150, period_s=1.0, slots=10, connections=8, spare_s=2
    )
    with TemporaryDirectory(prefix="s-") as folder:
        soaked = soak.soak(options, Path(folder))
    assert soaked.rounds == 2 * options.pairs == 4
    assert soaked.fed.outcomes.taken == soaked.rounds * options.reports
    assert soaked.faults == []
    figures = soak.figures(options, soaked)
    assert figures["refused"].held is True
    assert np.isfinite(figures["answer, p99"].median)
