"""Numbered crash points: run once to count, then fail at each, finish, check.

Every step of a process is one: it may die just before it, when others have acted since its last
step, or just after it, when nobody has. So is every step of its disk, every trip to the store and
every message between collector and helpers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tests.sim.loop import WORLD, Process
from tests.sim.profile import Profile
from tests.sim.run import run_many
from tests.sim.scenario import Outcome
from tests.sim.world import World

Kind = Literal["before", "after", "disk", "request", "reply", "late", "wire"]

# The whole path from opening to release with as little beside it as possible.
PROFILE: Final = Profile(collectors=2, clients=4, twins=1, open_s=1, disk_s=0.0, shuffled=False)
ENTROPY: Final = 7
DOWN_S: Final = 0.7
MORTAL: Final = ("c1", "c2", "h1", "s")
# Steps of those who only look around every now and then.
IDLE: Final = frozenset(
    {
        "RoundBook.run",
        "Health.run",
        "_count",
        "_sweep",
        "close_idle",
        "World._store",
        "_set_result_unless_cancelled",
        "AnchorFile.run",
    }
)


@dataclass(frozen=True)
class Point:
    """Where something fails: the so-manyth step, disk step, trip or message."""

    kind: Kind
    host: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.host}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Reads what `str` wrote."""
        kind, host, number = text.split(":")
        return cls(kind, host, int(number))  # type: ignore[arg-type]


def all_points() -> list[Point]:
    """Every point of a run without faults."""
    [outcome] = run_many([0], profile=lambda _: PROFILE, trace=True, entropy=ENTROPY, jobs=1)
    if outcome.violations:
        raise AssertionError(outcome.violations)
    found = []
    for host in MORTAL:
        for number, what in enumerate(_steps(outcome, host), start=1):
            if what not in IDLE:
                found += [Point("before", host, number), Point("after", host, number)]
        disk = range(1, outcome.counts[f"disk {host}"] + 1)
        found += [Point("disk", host, number) for number in disk]
    kinds: tuple[Kind, ...] = ("request", "reply", "late")
    for number in range(1, outcome.counts["trips"] + 1):
        found += [Point(kind, "s", number) for kind in kinds]
    for number in range(1, outcome.counts["writes ch"] + 1):
        found.append(Point("wire", "ch", number))
    return found


def spread(points: list[Point], every: int = 4) -> list[Point]:
    """Fewer points: of the steps and the late trips only every fourth."""
    rare = ("disk", "request", "reply", "wire")
    return [it for it in points if it.kind in rare or it.number % every == 0]


def run_points(points: list[Point], jobs: int = 2) -> Iterator[tuple[Point, Outcome]]:
    """Fails at each point in turn; outcomes as they come."""
    numbers = range(len(points))
    for outcome in run_many(
        numbers,
        profile=lambda _: PROFILE,
        prepare=lambda number, world: plant(world, points[number]),
        entropy=ENTROPY,
        jobs=jobs,
    ):
        yield points[outcome.seed], outcome


def plant(world: World, point: Point) -> None:
    """Makes the world fail at a point."""
    match point.kind:
        case "before":
            world.loop.before_step = _counting(world, point.host, point.number, after=False)
        case "after":
            world.loop.before_step = _counting(world, point.host, point.number, after=True)
        case "disk":
            world.host(point.host).dies_at_disk = point.number
            world.host(point.host).planted = True
            world.loop.on_kill.append(lambda process: _revive(world, point.host, process))
        case "wire":
            world.net.lost_writes[point.host] = point.number
        case what:
            world.lost_trips[point.number] = what


def _counting(world: World, host: str, number: int, *, after: bool) -> Callable[[Process], None]:
    """Kills the first incarnation before its step `number`, or right after that step."""

    def before_step(process: Process) -> None:
        victim = world.host(host).process
        if victim is None or not victim.alive or victim.incarnation > 1:
            return
        if (after and victim.steps == number) or (
            not after and victim is process and victim.steps == number - 1
        ):
            _die(world, host)

    return before_step


def _die(world: World, host: str) -> None:
    world.loop.before_step = None
    world.kill(host)
    world.seen["died_at_point"] += 1
    _later(world, host)


def _revive(world: World, host: str, process: Process) -> None:
    if process.host == host and process.incarnation == 1 and world.loop.blocking is process:
        world.seen["died_at_point"] += 1
        _later(world, host)


def _later(world: World, host: str) -> None:
    world.loop.call_later(DOWN_S, world.boot, host, context=world.loop.context_of(WORLD))


def _steps(outcome: Outcome, host: str) -> list[str]:
    """Names of the steps of the first incarnation of a host."""
    mark = f"{host}#1"
    found = []
    for line in outcome.trace:
        _, who, what = line.split(" ", 2)
        if who == mark and not what.startswith(("log ", "kill", "stop", "continue")):
            found.append(what)
    return found
