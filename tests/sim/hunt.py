"""Which mutants a simulation notices, and after how many seeds: `python -m tests.sim.hunt SEEDS`.

Prints a table: failing seeds, and the first of them, under the profiles that seeds draw and under
the one that is sharp for the mutant. With `first` in the place of SEEDS it stops at the first seed
that notices each mutant, and runs that seed with the product whole as well. With `everysec` it runs
the whole product over a store that loses a tail now and then. Exit code 1: a mutant was not
noticed, or the whole product was.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.sim.mutants import EVERYSEC, MUTANTS, Mutant, Patch
from tests.sim.profile import Profile
from tests.sim.run import run_many
from tests.sim.world import World

SEEDS_MAX: Final = 40
EVERYSEC_SEEDS: Final = 24
WAVE: Final = 4
# Runs are numbered: mutant, then seed. Chance follows from the number.
_RUNS: Final = 1_000


@dataclass
class Found:
    """Violations by seed."""

    by_seed: dict[int, list[str]] = field(default_factory=dict)

    @property
    def first(self) -> int | None:
        """The first seed that failed."""
        return min(self.by_seed, default=None)


def hunted() -> Sequence[Mutant]:
    """The mutants that a simulation is meant to notice."""
    return [mutant for mutant in MUTANTS if mutant.sharp is not None]


def hunt(
    mutants: Sequence[Mutant], seeds: Iterable[int], *, sharp: bool = True, broken: bool = True
) -> dict[str, Found]:
    """Runs every mutant on every seed, all in one pool of workers.

    Args:
        mutants: some of `hunted`.
        seeds: below 1,000.
        sharp: whether under the mutant's own profile, or under those that seeds draw.
        broken: whether the product is broken at all.
    """
    all_ = hunted()
    numbers = [_RUNS * all_.index(mutant) + seed for seed in seeds for mutant in mutants]
    return _run(numbers, sharp=sharp, broken=broken)


def _run(numbers: Sequence[int], *, sharp: bool = True, broken: bool = True) -> dict[str, Found]:
    all_ = hunted()

    def profile(number: int) -> Profile:
        mutant = all_[number // _RUNS]
        if sharp and mutant.sharp is not None:
            return mutant.sharp
        return Profile.draw(number % _RUNS)

    def prepare(number: int, world: World) -> None:
        mutant = all_[number // _RUNS]
        if sharp and mutant.prepare is not None:
            mutant.prepare(number % _RUNS, world)
        if broken:
            # Never undone: the process ends with the seed.
            mutant.patch(Patch())

    found = {all_[number // _RUNS].name: Found() for number in numbers}
    for outcome in run_many(numbers, profile=profile, prepare=prepare):
        # What is wrong with the simulation itself is no catch.
        if odd := [it for it in outcome.violations if not it.startswith(("I", "fault"))]:
            raise AssertionError(odd)
        if outcome.violations:
            name = all_[outcome.seed // _RUNS].name
            found[name].by_seed[outcome.seed % _RUNS] = outcome.violations
    return found


def first_seeds() -> Iterator[tuple[Mutant, int | None, list[str], list[str]]]:
    """Each mutant, the first seed that notices it, what it says, and what the whole product does.

    The seed is None if `SEEDS_MAX` of them notice nothing.
    """
    caught: dict[str, tuple[int, list[str]]] = {}
    for start in range(0, SEEDS_MAX, WAVE):
        left = [mutant for mutant in hunted() if mutant.name not in caught]
        if not left:
            break
        for name, found in hunt(left, range(start, start + WAVE)).items():
            if (first := found.first) is not None:
                caught[name] = (first, found.by_seed[first])
    numbers = [
        _RUNS * index + caught[mutant.name][0]
        for index, mutant in enumerate(hunted())
        if mutant.name in caught
    ]
    whole = _run(numbers, broken=False)
    for mutant in hunted():
        seed, said = caught.get(mutant.name, (None, []))
        clean = whole[mutant.name].by_seed.get(seed, []) if seed is not None else []
        yield mutant, seed, said, clean


def main(words: list[str]) -> int:
    """The command."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim.hunt", *words])
    wanted = words[0] if words else "100"
    match wanted:
        case "first":
            return _firsts()
        case "everysec":
            return _everysec()
        case count:
            return _table(int(count), words[1:])


def _firsts() -> int:
    failed = False
    for mutant, seed, said, clean in first_seeds():
        failed |= seed is None or bool(clean)
        print(f"{mutant.name}: seed {seed}; {'; '.join(said[:1])}")
        if clean:
            print(f"  the whole product on the same seed: {clean}")
    return int(failed)


def _everysec() -> int:
    """Nothing that was acknowledged is missing, or the round is damaged and nothing is released."""
    violations, seen = [], Counter[str]()
    for outcome in run_many(range(EVERYSEC_SEEDS), profile=lambda _: EVERYSEC):
        violations += outcome.violations
        seen += outcome.seen
    print(f"released {seen['round_released']}, damaged {seen['round_damaged']}")
    print(f"alarms of a commit {seen['commit_lost']}, of the seal {seen['damage_at_seal']}")
    print(f"violations {violations}")
    reached = seen["round_released"] and seen["round_damaged"] and seen["damage_at_seal"]
    return int(bool(violations) or not reached)


def _table(count: int, names: Sequence[str]) -> int:
    mutants = [mutant for mutant in hunted() if not names or mutant.name in names]
    print(f"failing seeds of {count}, and the first   drawn         sharp", flush=True)
    missed = []
    for mutant in mutants:
        drawn, sharp = (hunt([mutant], range(count), sharp=it)[mutant.name] for it in (False, True))
        cells = [f"{len(it.by_seed):4} {it.first!s:>6}" for it in (drawn, sharp)]
        print(f"{mutant.name:<30} {'   '.join(cells)}    {mutant.what}", flush=True)
        if not sharp.by_seed:
            missed.append(mutant.name)
    if missed:
        print(f"not noticed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
