"""What a crowd does when every client keeps to the windows it was told; no sockets, virtual time.

A client comes, is told a window, draws its next visit as the reference client does, and comes
then. Clients are alike, so a crowd is how many come in each second. Bins are seconds; the mean is
over the seconds in which all of the crowd come back once.
"""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from client_py.transport import visit
from collector.config import PaceConfig
from collector.pace import Pace

START = 1_800_000_000
CROWD = 100_000


class Clock:
    """Seconds, moved by the simulation."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


def steered(pace: Pace, now: float, rng: random.Random) -> int:
    """When a client that was answered comes back."""
    return visit(pace.window(), now, rng)


def visits(
    config: PaceConfig,
    seconds: int,
    comers: Callable[[int], int],
    *,
    collectors: int = 1,
    again: Callable[[Pace, float, random.Random], int] = steered,
) -> np.ndarray:
    """How many come in each second.

    `comers` gives how many new ones come in a second, or how many of those that come then never do
    again, as a negative number. Each visit meets one of the collectors.
    """
    rng, clock = random.Random(7), Clock()
    paces = [Pace(config, clock, clock) for _ in range(collectors)]
    due: Counter[int] = Counter()
    came = np.zeros(seconds, dtype=np.int64)
    for second in range(seconds):
        change = comers(second)
        came[second] = due.pop(second, 0) + max(change, 0)
        for number in range(came[second]):
            clock.now = START + second + number / came[second]
            pace = paces[number % collectors]
            pace.arrived()
            if number >= -change:
                due[max(again(pace, clock.now, rng) - START, second + 1)] += 1
        clock.now = START + second + 1.0
    return came


def at_once(count: int) -> Callable[[int], int]:
    """All come in the first second."""
    return lambda second: 0 if second else count


def test_a_crowd_that_restarts_at_once_comes_back_spread_out() -> None:
    """100,000 after an outage: none before the window, all within it, peak / mean < 2."""
    came = visits(PaceConfig(), 121, at_once(CROWD))
    assert came[0] == CROWD
    assert came[1:60].sum() == 0
    back = came[60:120]
    assert back.sum() == CROWD
    assert back.max() / back.mean() < 2


def test_control_a_fixed_pause_brings_them_all_at_once_again() -> None:
    """Without a window, whoever came together comes together for ever: peak / mean > 10."""
    came = visits(PaceConfig(), 121, at_once(CROWD), again=lambda _, now, __: int(now) + 60)
    back = came[60:120]
    assert back.sum() == CROWD
    assert back.max() / back.mean() > 10


@pytest.mark.parametrize("target", [200.0, 500.0, 1_500.0])
def test_a_crowd_larger_than_a_window_takes_as_many_as_it_needs(target: float) -> None:
    """The rate comes to the target at once and stays there; nobody is sent away for longer than the
    crowd takes at that rate."""
    config = PaceConfig(target_per_s=target)
    needs = int(CROWD / target)
    came = visits(config, 2 * needs + 200, at_once(CROWD))
    assert came[1:].max() < 1.25 * target
    # The last of them are back when all could be, give or take a window.
    assert came[1 : 60 + int(needs * 8 / 7) + 120].sum() >= CROWD
    back = came[60 : 60 + needs]
    assert back.max() / back.mean() < 2
    assert back.mean() > 0.75 * target


def test_control_without_booking_a_large_crowd_comes_all_in_one_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If nobody remembers who was told what, every window is the first one."""

    def forget(pace: Pace) -> None:
        pace._counted, pace._since = 0, int(pace._steady())

    monkeypatch.setattr(Pace, "_book", forget)
    came = visits(PaceConfig(target_per_s=200.0), 121, at_once(CROWD))
    assert came[60:120].sum() == CROWD


def test_a_few_clients_come_back_soon() -> None:
    """Fifty clients are told the nearest window every time."""
    came = visits(PaceConfig(), 1_000, at_once(50))
    assert came[60:121].sum() >= 50
    assert came.sum() >= 50 * 1_000 / 120


def test_a_crowd_that_grows_and_shrinks_is_held_at_the_target() -> None:
    """While it grows the rate rises to the target and no further; windows are near again soon after
    most have gone."""
    config = PaceConfig(target_per_s=300.0)
    came = visits(config, 2_000, lambda second: 60 if second < 1_000 else -60)
    known = came[:1_000] - 60
    assert known.max() < 1.25 * 300
    assert known[800:].mean() > 0.75 * 300
    assert came[1_000:].max() < 1.25 * 300
    assert came.sum() > 300_000


def test_two_collectors_take_twice_as_much() -> None:
    """Each process steers those that it meets: together they get twice the target, not less."""
    config = PaceConfig(target_per_s=250.0)
    came = visits(config, 600, at_once(CROWD), collectors=2)
    assert came[1:].max() < 1.25 * 500
    assert came[120:400].mean() > 0.75 * 500


def test_more_than_all_windows_hold_are_spread_over_all_of_them() -> None:
    """A crowd beyond every window's room is spread over the whole time that may be told."""
    config = PaceConfig(target_per_s=10.0, window_min_s=60, window_max_s=600)
    came = visits(config, 601, at_once(20_000))
    back = came[60:600]
    assert back.sum() >= 20_000
    assert back.max() / back.mean() < 2


def test_the_header_names_the_window() -> None:
    """Whole seconds by the wall clock, first and last."""
    clock = Clock()
    pace = Pace(PaceConfig(), clock, clock)
    clock.now += 0.9
    assert pace.window() == (START + 60, START + 120)
    assert pace.headers() == {"Dandelion-Window": f"{START + 60} {START + 120}"}


def test_a_pause_forgets_nothing_and_breaks_nothing() -> None:
    """After a night without a request, and after a clock that stood still, the next one is told the
    nearest window."""
    clock = Clock()
    pace = Pace(PaceConfig(target_per_s=10.0), clock, clock)
    for _ in range(5_000):
        pace.arrived()
    assert pace.window()[0] > START + 120
    clock.now += 100_000.0
    pace.arrived()
    assert pace.window() == (START + 100_060, START + 100_120)
