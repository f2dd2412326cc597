"""The simulation notices when the product is broken: every mutant, within a few seeds.

The hunt is a command of its own, so that no mutant gets into this interpreter. All of them on a
hundred seeds, as a table: `make simulate-mutants`.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from tests.helper.builders import Bench, ask_of, closed, reports_of
from tests.sim.helper_model import Explorer, Violation
from tests.sim.hunt import SEEDS_MAX, hunted
from tests.sim.mutants import MUTANTS, Mutant, Patch

ROOT = Path(__file__).parents[2]
TWELVE = 12


def run(*words: str) -> tuple[int, str]:
    """Runs the hunt; its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.hunt", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def named(name: str) -> Mutant:
    """The mutant of this name."""
    [found] = [mutant for mutant in MUTANTS if mutant.name == name]
    return found


def test_every_mutant_has_somebody_who_catches_it() -> None:
    """A simulation, or a test of this file."""
    assert len(MUTANTS) >= TWELVE
    for mutant in MUTANTS:
        assert (mutant.sharp is None) == bool(mutant.direct), mutant.name
        assert not mutant.direct or mutant.direct in globals()


@pytest.mark.timeout(300)
def test_every_mutant_is_noticed_and_the_whole_product_is_not() -> None:
    """The first seed that fails with the broken product passes with the whole one."""
    code, text = run("first")
    assert code == 0, text
    lines = [line for line in text.splitlines() if ": seed " in line]
    assert len(lines) == len(hunted())
    assert all("seed None" not in line for line in lines), f"{SEEDS_MAX} seeds:\n{text}"


@pytest.mark.timeout(300)
def test_a_lossy_store_loses_nothing_unnoticed() -> None:
    """Over `everysec` an acknowledged report is in the release, or the round ends damaged."""
    code, text = run("everysec")
    assert code == 0, text


async def too_small_a_set(bench: Bench) -> str:
    """Asks a helper for one report less than it has signed for; the reply's token or status."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        return (await helper.ask(ask_of(d, reports_of(d, range(d.cohort_min - 1))))).token


async def test_a_helper_counts_itself(tmp_path: Path) -> None:
    """What the collector counted is nothing to a helper; broken, it answers for two."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert await too_small_a_set(Bench(whole)) == "cohort_too_small"
    with named("cohort of the collector")():
        assert await too_small_a_set(Bench(broken)) == "202"


def test_a_refund_of_what_was_answered(tmp_path: Path) -> None:
    """The exploration of a helper finds it (test_helper_model.py runs the whole product)."""
    explorer = Explorer(tmp_path, shards=2, asks=((0, "A"), (1, "A")), copies=())
    try:
        with named("refund on abandon")(), pytest.raises(Violation, match="is refunded"):
            explorer.run()
    finally:
        explorer.close()


class Recording:
    """Patches, and notes what was replaced."""

    def __init__(self) -> None:
        self.patch = Patch()
        self.replaced: list[tuple[object, str, object]] = []

    def setattr(self, target: object, name: str, value: object) -> None:
        """As `MonkeyPatch.setattr`."""
        self.replaced.append((target, name, getattr(target, name)))
        self.patch.setattr(target, name, value)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_something_and_leaves_nothing_behind(mutant: Mutant) -> None:
    """It still finds what it replaces, and a context that ends has put everything back."""
    recording = Recording()
    mutant.patch(cast(Patch, recording))
    assert recording.replaced
    assert all(getattr(target, name) is not was for target, name, was in recording.replaced)
    recording.patch.undo()
    assert all(getattr(target, name) is was for target, name, was in recording.replaced)
