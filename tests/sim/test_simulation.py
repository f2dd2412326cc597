"""The product's processes under seeded faults: 1,000 seeds, their replay, and crash points.

Each test is a command of its own, so that nothing of this interpreter gets into it. More of the
same: `make simulate-faults SEEDS=0:100000`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.checks import Checks
from tests.sim.coverage import REACHED
from tests.sim.profile import Profile
from tests.sim.run import run_seed
from tests.sim.scenario import Outcome
from tests.sim.world import World

ROOT = Path(__file__).parents[2]
SEEDS = 1_000


def campaign(words: str, hash_seed: str = "0") -> tuple[int, str]:
    """Runs the command; its exit code and what it printed."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_no_seed_breaks_an_invariant_and_every_fault_is_reached() -> None:
    """Kills, losses, jumps, full disks and old copies: I1 to I8 hold, and all of it occurred."""
    code, text = campaign(f"0:{SEEDS}")
    assert f"0 of {SEEDS} seeds failed" in text, text
    assert code == 0, text
    for name, _ in REACHED:
        assert name in text


@pytest.mark.timeout(300)
def test_a_seed_replays_identically_in_another_interpreter() -> None:
    """Twenty seeds, twice: every step of every process at the same virtual time."""
    first = campaign("digests=0:20")
    assert len(first[1].splitlines()) == 20
    assert campaign("digests=0:20") == first


@pytest.mark.timeout(600)
def test_a_process_may_die_at_any_point_of_a_round() -> None:
    """Steps, disk, trips to the store, messages to helpers: whatever fails, the round is exact."""
    code, text = campaign("spread")
    assert code == 0, text
    assert "\n0 of " in text


@pytest.fixture
def calm() -> Profile:
    """A round without faults."""
    return Profile(clients=4, open_s=1)


def test_an_outcome_tells_what_broke(calm: Profile) -> None:
    """A seed with a broken product ends in violations, not in an exception."""

    def forget(world: World) -> None:
        # The store forgets, behind everybody's back, in the middle of the round.
        copy = world.server.snapshot()

        def back() -> None:
            world.kill("s")
            world.server.restore(copy)
            world.boot("s")

        world.loop.call_later(2.4, back)

    outcome = run_seed(3, profile=calm, prepare=forget)
    assert any("the store forgot nothing" in it for it in outcome.violations)


def test_a_calm_seed_counts_everybody(calm: Profile) -> None:
    """Without faults every report is accepted once and the round is released."""
    outcome = run_seed(5, profile=calm)
    assert outcome.violations == []
    assert outcome.phases == ["released"]
    assert outcome.seen["client_accepted_"] >= 2


def _broken_checks(outcome: Outcome) -> Iterator[str]:
    """Invariants that an outcome shows as broken."""
    yield from (it.split(":")[0] for it in outcome.violations)


@pytest.mark.parametrize(
    "invariant, statement",
    [
        ("I7", "UPDATE releases SET artefact = zeroblob(length(artefact))"),
        ("I7", "UPDATE ledger SET at = at + 1 WHERE seq = 1"),
        ("I7", "DELETE FROM releases"),
        ("I1", "UPDATE rounds SET phase = 'damaged'"),
    ],
)
def test_every_check_bites(calm: Profile, invariant: str, statement: str) -> None:
    """A state that was tampered with before the check is noticed."""
    real = Checks.run

    def tampered(self: Checks) -> None:
        connection = self._open("collector", "collector.sqlite3")
        connection.execute(statement)
        connection.commit()
        connection.close()
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checks, "run", tampered)
        outcome = run_seed(5, profile=calm)
    assert invariant in set(_broken_checks(outcome))
