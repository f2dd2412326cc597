"""One helper, taken up between two events and led through one more, or into a crash in its middle.

The steps are the product's own: `Signer`, `Answers` and `Keeper` over a real database and real root
files, put back anew for every step. A step is an event, in the middle of which the process crashes
at the k-th change of its disk, or the disk fails there and the process goes on, or neither.

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
from dandelion.schemes import oneshot
from helper import answers as answers_module
from helper.answers import Answers, _InFlight
from helper.config import Config
from helper.keeper import Keeper
from helper.roots import Roots
from helper.signing import Signer
from helper.store import StateThread, Store
from tests.helper.builders import T0, ask_of, make_config, make_descriptor, reports_of, secret
from tests.sim.troubles import Crash, Mode, Trouble, connection_type, patch_calls

T = TypeVar("T")

SEED: Final = secret("this helper")
IDENTITY: Final = identity_of(SEED)
# Before the round closes, while asks are answered, after its end, after answers are dropped.
TIMES: Final = (T0 + 1, T0 + 100, T0 + 1_000, T0 + 100_000)
# The first of them at which the round has expired.
EXPIRED: Final = 2


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


class HelperSteps:
    """The steps of one helper with one round.

    Args:
        folder: where the root files are.
        shards: a power of two.
        asks: shard and name of the sets that are asked for; "A" and "B" of a shard differ.
    """

    def __init__(self, folder: Path, shards: int, asks: Sequence[tuple[int, str]]) -> None:
        self._roots = folder / "roots"
        self._shards = shards
        self._config = _config(folder)
        self._trouble = Trouble()
        self._loop = asyncio.new_event_loop()
        self.heard: Counter[str] = Counter()
        # What broken code lets out by itself: shard and answer.
        self.sent: list[tuple[int, bytes]] = []
        self._store = Store.__new__(Store)
        self._connection = connection_type(lambda: self._trouble)
        self._store._db = self._connect()
        self._store._open(IDENTITY)
        self._root_files = Roots(self._roots)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "urandom", lambda _: secret("root"))
            mask_key = Signer(self._config, SEED, self._store, self._root_files).make_key(T0)
        self.descriptor = make_descriptor(
            IDENTITY, mask_key, cohort_min=2, shard_bits=shards.bit_length() - 1
        )
        self._asks = {
            (shard, name): ask_of(self.descriptor, _clients(self.descriptor, shard, name), shard)
            for shard, name in asks
        }

    def close(self) -> None:
        """Lets go of the loop and the database."""
        self._store.close()
        self._loop.close()

    def steps_of(self, machine: Machine) -> Iterator[Step]:
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
            await _Here().run(signer.sign, self.descriptor, TIMES[machine.time])
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
            found = await self._answers.answer(self.descriptor.ctx, shard)
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

    def down(self) -> Machine:
        """The machine that is down, over what is on the disk now."""
        files = sorted(self._roots.iterdir())
        roots = tuple((path.name, path.read_bytes()) for path in files)
        rows = tuple(tuple(self._store._db.execute(query)) for query in _ROWS)
        names = tuple(f"{name}{'' if any(content) else ' erased'}" for name, content in roots)
        return Machine(Disk(self._store._db.serialize(), roots), rows, names)

    def _saved(self, machine: Machine) -> Machine:
        """`machine` with what is on the disk now."""
        found = self.down()
        return replace(machine, disk=found.disk, rows=found.rows, roots=found.roots)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The product's calls into threads and onto the disk go through this machine."""

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
