"""Every order of events, and every moment of a crash, of one helper and one round; breadth first.

The steps are the product's own: `Signer`, `Answers` and `Keeper` over a real database and real root
files, put back anew for every step. A step is an event, in the middle of which the process crashes
at the k-th change of its disk, or the disk fails there and the process goes on, or neither. After
each step the invariants compare the machine with what has left it so far.

Leaves out: HTTP, the delay of answers, SQLite's own recovery (tests/helper/test_recovery.py kills
real processes for that), and threads: a computation stands still between two events.
"""

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest

from dandelion.descriptor import Descriptor
from dandelion.encoding import identity_of
from dandelion.errors import DandelionError, RuleError
from dandelion.messages import Report
from dandelion.privacy import ledger
from dandelion.schemes import oneshot
from helper import answers as answers_module
from helper.answers import Answers, _InFlight
from helper.config import Config
from helper.keeper import Keeper
from helper.roots import Roots
from helper.signing import Signer
from helper.store import State, StateThread, Store
from tests.helper.builders import T0, ask_of, make_config, make_descriptor, reports_of, secret
from tests.sim.troubles import Crash, Mode, Trouble, connection_type, patch_calls

T = TypeVar("T")

SEED: Final = secret("this helper")
IDENTITY: Final = identity_of(SEED)
# Before the round closes, while asks are answered, after its end, after answers are dropped.
TIMES: Final = (T0 + 1, T0 + 100, T0 + 1_000, T0 + 100_000)
EXPIRED: Final = 2


class Violation(AssertionError):
    """An invariant does not hold; the message is the way there."""


@dataclass(frozen=True)
class Disk:
    """What a crash leaves: the database file and the root files."""

    database: bytes
    roots: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Machine:
    """A helper between two events: everything on which its next step depends."""

    # The bytes also hold times, which make no difference here: `rows` tells databases apart.
    disk: Disk = field(compare=False)
    rows: tuple[tuple[Any, ...], ...]
    roots: tuple[str, ...]
    time: int = 0
    running: bool = False
    computing: tuple[tuple[int, str], ...] = ()  # shard and name of the set


@dataclass(frozen=True)
class Step:
    """What one event made of a machine, and the answer that left it, with its shard."""

    name: str
    after: Machine
    answer: tuple[int, bytes] | None = None


@dataclass(frozen=True)
class Node:
    """A machine, what has left it so far, and an old copy of its disk."""

    now: Machine
    left: frozenset[tuple[int, bytes]] = frozenset()
    copy: Machine | None = None
    restored: frozenset[str] = frozenset()
    path: tuple[str, ...] = field(default=(), compare=False)

    def then(self, step: str, **changes: Any) -> "Node":
        """The node that follows."""
        return replace(self, path=(*self.path, step), **changes)


@dataclass(frozen=True)
class Outcome:
    """Nodes and machines there were, the states of rounds among them, how often which word came."""

    nodes: int
    machines: int
    states: set[str]
    heard: Counter[str]


Acted = tuple[Machine, tuple[int, bytes] | None]
Acting = Coroutine[Any, Any, Acted]

_GOING_ON: Final = "going on"
_ROWS: Final = (
    "SELECT mask_key FROM keys",
    "SELECT ctx, state FROM signings",
    "SELECT shard, set_digest, answer IS NULL FROM answers ORDER BY shard",
    "SELECT kind, ctx, shard FROM ledger ORDER BY seq",
)


class _Here:
    """A state thread without a thread."""

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        try:
            return call(*args)
        except (OSError, sqlite3.OperationalError):
            raise RuleError("store_unavailable") from None


class Explorer:
    """One round of one helper.

    Args:
        folder: where the root files are.
        shards: a power of two.
        asks: shard and name of the sets that are asked for; "A" and "B" of a shard differ.
        copies: what of an old copy may be put back: "database", "roots".
    """

    def __init__(
        self,
        folder: Path,
        *,
        shards: int = 1,
        asks: Sequence[tuple[int, str]] = ((0, "A"), (0, "B")),
        copies: Sequence[str] = ("database",),
    ) -> None:
        self._roots = folder / "roots"
        self._copies = tuple(copies)
        self._shards = shards
        self._config = _config(folder)
        self._trouble = Trouble()
        self._steps: dict[Machine, list[Step]] = {}
        self._loop = asyncio.new_event_loop()
        self.heard: Counter[str] = Counter()
        # What broken code lets out by itself.
        self.sent: list[tuple[int, bytes]] = []
        self._store = Store.__new__(Store)
        self._connection = connection_type(lambda: self._trouble)
        self._store._db = self._connect()
        self._store._open(IDENTITY)
        self._root_files = Roots(self._roots)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "urandom", lambda _: secret("root"))
            mask_key = Signer(self._config, SEED, self._store, self._root_files).make_key(T0)
        self._descriptor = make_descriptor(
            IDENTITY, mask_key, cohort_min=2, shard_bits=shards.bit_length() - 1
        )
        self._asks = {
            (shard, name): ask_of(self._descriptor, _clients(self._descriptor, shard, name), shard)
            for shard, name in asks
        }

    def close(self) -> None:
        """Lets go of the loop and the database."""
        self._store.close()
        self._loop.close()

    def run(self) -> Outcome:
        """Visits every node.

        Raises:
            Violation: with a shortest way to it.
        """
        first = Node(self._machine())
        seen = {first}
        frontier = [first]
        with self._patched():
            while frontier:
                following = []
                for node in frontier:
                    for after in self._successors(node):
                        _check(after, self._descriptor)
                        if after not in seen:
                            seen.add(after)
                            following.append(after)
                frontier = following
        states = {state for machine in self._steps for _, state in machine.rows[1]}
        return Outcome(len(seen), len(self._steps), states, self.heard)

    # Steps

    def _successors(self, node: Node) -> Iterator[Node]:
        if node.now not in self._steps:
            self._steps[node.now] = list(self._steps_of(node.now))
        for step in self._steps[node.now]:
            left = node.left | {step.answer} if step.answer else node.left
            yield node.then(step.name, now=step.after, left=left)
        if node.copy is None and not node.restored and self._copies:
            yield node.then("copy", copy=self._copy(node.now))
        if node.copy is None or node.now.running:
            return
        for what in self._copies:
            if what not in node.restored:
                now = _restored(node.now, node.copy, what)
                yield node.then(f"restore {what}", now=now, restored=node.restored | {what})

    def _copy(self, machine: Machine) -> Machine:
        """Of a machine what can be put back; copies that differ elsewhere are one."""
        roots = machine.roots if "roots" in self._copies else ()
        return Machine(machine.disk, machine.rows, roots)

    def _steps_of(self, machine: Machine) -> Iterator[Step]:
        """One event each, with a crash in it or without."""
        if machine.time + 1 < len(TIMES):
            yield Step(f"time {machine.time + 1}", replace(machine, time=machine.time + 1))
        if not machine.running:
            yield from self._event(machine, "start", self._sweep)
            return
        yield Step("kill", replace(machine, running=False, computing=()))
        yield from self._event(machine, "sweep", self._sweep)
        if machine.time == 0:
            yield from self._event(machine, "sign", self._sign)
        for shard in range(self._shards):
            yield from self._event(machine, f"fetch {shard}", self._fetch, shard)
        for shard, name in self._asks:
            yield from self._event(machine, f"ask {shard}{name}", self._ask, shard, name)
        for shard, name in machine.computing:
            yield from self._event(machine, f"compute {shard}{name}", self._compute, shard, name)

    def _event(
        self, machine: Machine, name: str, act: Callable[..., Acting], *args: object
    ) -> Iterator[Step]:
        going_on = args if act == self._compute else None
        modes: list[Mode] = ["", "crash", "failure"]
        for mode in modes:
            for number in count():
                self._load(machine, going_on)
                trouble = self._trouble = Trouble(mode, number)
                after = replace(machine, running=False, computing=())
                answer = None
                self.sent.clear()
                with suppress(Crash):
                    after, answer = self._loop.run_until_complete(act(machine, *args))
                self._trouble = Trouble()
                self._end_tasks()
                if mode and not trouble.come:
                    break
                self.heard[f"{act.__name__[1:]} {mode or 'done'}"] += 1
                what = f"{name}, {mode} {number}" if mode else name
                yield Step(what, self._saved(after), answer or next(iter(self.sent), None))
                if not mode:
                    break
            if not trouble.changes:
                return

    async def _sweep(self, machine: Machine) -> Acted:
        keeper = Keeper(self._config, self._store, self._root_files)
        try:
            await _Here().run(keeper.sweep, TIMES[machine.time])
        except RuleError:
            # At the start this ends the process, later the next sweep tries again.
            return machine, None
        return replace(machine, running=True), None

    async def _sign(self, machine: Machine) -> Acted:
        signer = Signer(self._config, SEED, self._store, self._root_files)
        with self._heard("sign"):
            await _Here().run(signer.sign, self._descriptor, TIMES[machine.time])
        return machine, None

    async def _ask(self, machine: Machine, shard: int, name: str) -> Acted:
        ask = self._asks[shard, name]
        before = set(self._answers._in_flight)
        with self._heard("ask"):
            await self._answers.ask(ask.ctx, shard, ask.encode())
        if set(self._answers._in_flight) == before:
            return machine, None
        return replace(machine, computing=tuple(sorted((*machine.computing, (shard, name))))), None

    async def _compute(self, machine: Machine, shard: int, name: str) -> Acted:
        [task] = [task for task in self._answers._tasks if task.get_name() == _GOING_ON]
        self._result.set()
        with self._heard("compute"):
            await task
        rest = tuple(other for other in machine.computing if other != (shard, name))
        return replace(machine, computing=rest), None

    async def _fetch(self, machine: Machine, shard: int) -> Acted:
        with self._heard("fetch"):
            found = await self._answers.answer(self._descriptor.ctx, shard)
            if isinstance(found, bytes):
                self.heard["answer"] += 1
                return machine, (shard, found)
        return machine, None

    @contextmanager
    def _heard(self, what: str) -> Iterator[None]:
        try:
            yield
        except DandelionError as error:
            self.heard[f"{what}: {error.token}"] += 1
        else:
            self.heard[what] += 1

    # States

    def _start(self, disk: Disk) -> None:
        """A process over a disk."""
        # A connection of its own: one that is given another database may use what it remembers of
        # the last one.
        self._store.close()
        self._store._db = self._connect()
        self._store._db.deserialize(disk.database)
        for path in self._roots.iterdir():
            path.unlink()
        for name, content in disk.roots:
            (self._roots / name).write_bytes(content)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None, factory=self._connection)

    def _load(self, machine: Machine, chosen: object) -> None:
        """A process of that machine, with its computations where they stood; one goes on."""
        self._start(machine.disk)
        self._steady = 0.0
        self._answers = Answers(
            self._config,
            SEED,
            self._store,
            self._root_files,
            cast(StateThread, _Here()),
            lambda: TIMES[machine.time],
            self._tick,
        )
        self._result = asyncio.Event()
        # Computations take turns by a lock; the one that will go on has it.
        for shard, name in sorted(machine.computing, key=lambda place: place != chosen):
            self._resume(shard, name, going_on=(shard, name) == chosen)

    def _tick(self) -> float:
        # Each look at the steady clock finds that the delay of an answer has passed.
        self._steady += 1_000.0
        return self._steady

    def _resume(self, shard: int, name: str, *, going_on: bool) -> None:
        ask = self._asks[shard, name]
        signing = self._store.signing(ask.ctx)
        assert signing is not None
        place = (ask.ctx, shard)

        async def hold() -> None:
            flight = self._answers._in_flight[place] = _InFlight(ask.set_digest, ask.sum)
            flight.judged.set_result(True)
            work = self._answers._compute(place, flight, signing, ask, secret("root"))
            task = asyncio.create_task(work, name=_GOING_ON if going_on else None)
            self._answers._tasks.add(task)

        self._loop.run_until_complete(hold())

    def _end_tasks(self) -> None:
        async def end(tasks: list["asyncio.Task[None]"]) -> None:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        if tasks := list(self._answers._tasks):
            self._loop.run_until_complete(end(tasks))

    def _machine(self) -> Machine:
        """A machine that is down, over what is on the disk."""
        files = sorted(self._roots.iterdir())
        roots = tuple((path.name, path.read_bytes()) for path in files)
        rows = tuple(tuple(self._store._db.execute(query)) for query in _ROWS)
        names = tuple(f"{name}{'' if any(content) else ' erased'}" for name, content in roots)
        return Machine(Disk(self._store._db.serialize(), roots), rows, names)

    def _saved(self, machine: Machine) -> Machine:
        """`machine` with what is on the disk now."""
        found = self._machine()
        return replace(machine, disk=found.disk, rows=found.rows, roots=found.roots)

    @contextmanager
    def _patched(self) -> Iterator[None]:
        async def gated(call: Callable[[], T]) -> T:
            # Sums of masks take as long as other events like.
            task = asyncio.current_task()
            in_background = call.__qualname__.startswith("Answers._compute")
            if in_background and task is not None:
                goes_on = task.get_name() == _GOING_ON
                await (self._result.wait() if goes_on else self._loop.create_future())
            return call()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answers_module, "in_thread", gated)
            patch.setattr(oneshot, "answer_vector", _answer_vector)
            patch.setattr(Descriptor, "decode", _decode)
            patch_calls(patch, lambda: self._trouble)
            yield


def _restored(now: Machine, copy: Machine, what: str) -> Machine:
    disk = replace(now.disk, **{what: getattr(copy.disk, what)})
    if what == "database":
        return replace(now, disk=disk, rows=copy.rows)
    return replace(now, disk=disk, roots=copy.roots)


def _check(node: Node, descriptor: Descriptor) -> None:
    """The invariants, of a node and what has left its helper."""
    signings, entries = node.now.rows[1], node.now.rows[3]
    for shard in range(descriptor.shards):
        sent = {answer for at, answer in node.left if at == shard}
        if len(sent) > 1:
            raise Violation(_told("two answers for one shard have left", node))
        charged = any(kind == ledger.CHARGE and at == shard for kind, _, at in entries)
        if sent and not charged and "database" not in node.restored:
            raise Violation(_told("an answer has left that is not charged", node))
    if node.left and any(kind == ledger.FREE for kind, _, _ in entries):
        raise Violation(_told("a round that was answered is refunded", node))
    settled = node.now.running and node.path[-1] in ("start", "sweep")
    ended = node.now.time >= EXPIRED or any(state != State.LIVE for _, state in signings)
    if settled and ended and node.now.roots:
        raise Violation(_told("a root outlives its round", node))


def _told(what: str, node: Node) -> str:
    return f"{what}: {' > '.join(node.path)}"


def _config(folder: Path) -> Config:
    floors = {"cohort_min": 2, "lifetime_max_s": 10_000}
    return make_config(folder, floors=floors, key_unused_s=500, answers_kept_s=1_000)


def _clients(descriptor: Descriptor, shard: int, name: str) -> list[Report]:
    """Two clients of a shard, and a third in the set "A"."""
    found = reports_of(descriptor, range(40), shard)
    return found[: 3 if name == "A" else 2]


# Pure functions of their arguments, asked for the same a thousand times.
_answer_vector: Final = lru_cache(maxsize=64)(oneshot.answer_vector)
_decode: Final = lru_cache(maxsize=8)(Descriptor.decode)
