"""One seed: a deployment, its faults, their end, and what must hold then.

A seed runs in a process of its own, which ends without any destructor having run: what was killed
stays dead, and no seed knows of another.
"""

import asyncio
import atexit
import functools
import gc
import hashlib
import os
import pickle
import random
import selectors
import shutil
import signal
import sqlite3
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_py.transport import TransportError
from collector.database import FILE
from dandelion.privacy import accounting
from dandelion.round import Phase
from tests.sim.checks import Checks
from tests.sim.loop import Deadlock, SimLoop
from tests.sim.machine import install
from tests.sim.nemesis import Nemesis
from tests.sim.parties import Crowd, Http, Operator
from tests.sim.profile import Profile
from tests.sim.template import Template, make_template
from tests.sim.world import World

# Virtual seconds after the faults within which everybody must be done, and until a purge.
LIVELY_S: Final = 90.0
STEPS_MAX: Final = 400_000
WALL_S: Final = 60

Mutation = Callable[[], AbstractContextManager[None]]
Prepare = Callable[[int, World], None]


@dataclass
class Outcome:
    """What a seed came to. `violations` is empty if all invariants held."""

    seed: int
    violations: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    steps_by_host: dict[str, int] = field(default_factory=dict)
    virtual_s: float = 0.0
    digest: str = ""
    trace: list[str] = field(default_factory=list)


def run_seed(
    seed: int,
    *,
    profile: Profile | None = None,
    mutate: Mutation | None = None,
    prepare: Callable[[World], None] | None = None,
    trace: bool = False,
) -> Outcome:
    """Runs one seed in a child process.

    Args:
        seed: decides everything, together with the profile.
        profile: instead of the seed's own.
        mutate: makes a context in which the product is broken on purpose.
        prepare: is given the world before anything runs, for example to plan a crash.
        trace: whether the outcome carries the whole trace.
    """
    template = the_template()
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_memory()))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(writing, seed, profile or Profile.draw(seed), mutate, prepare, trace,
               template, folder)  # fmt: skip
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if status or not data:
        return Outcome(seed, [f"sim: the process ended with status {status}"])
    outcome: Outcome = pickle.loads(data)
    return outcome


_TEMPLATE: list[Template] = []
# What a warm-up leaves behind; nothing of it may ever be collected.
_KEPT: list[object] = []


def run_many(
    seeds: Iterable[int],
    *,
    profile: Callable[[int], Profile] = Profile.draw,
    mutate: Mutation | None = None,
    prepare: Prepare | None = None,
    trace: bool = False,
    jobs: int = 2,
) -> Iterator[Outcome]:
    """Runs seeds in worker processes and yields their outcomes as they come.

    Args:
        seeds: each decides everything, together with its profile.
        profile: gives the profile of a seed.
        mutate: makes a context in which the product is broken on purpose.
        prepare: is given seed and world before anything runs, for example to plan a crash.
        trace: whether outcomes carry the whole trace.
        jobs: worker processes.
    """
    the_template()
    todo = list(seeds)
    jobs = max(1, min(jobs, len(todo)))
    pipes = []
    for job in range(jobs):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _worker(writing, todo[job::jobs], profile, mutate, prepare, trace)
        os.close(writing)
        pipes.append((child, reading))
    try:
        yield from _outcomes([reading for _, reading in pipes])
    finally:
        for child, reading in pipes:
            os.close(reading)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


def run_seed(
    seed: int,
    *,
    profile: Profile | None = None,
    mutate: Mutation | None = None,
    prepare: Callable[[World], None] | None = None,
    trace: bool = False,
) -> Outcome:
    """Runs one seed in a process of its own; arguments as for `run_many`."""
    [outcome] = run_many(
        [seed],
        profile=lambda seed: profile or Profile.draw(seed),
        mutate=mutate,
        prepare=None if prepare is None else lambda _, world: prepare(world),
        trace=trace,
        jobs=1,
    )
    return outcome


def _outcomes(readings: list[int]) -> Iterator[Outcome]:
    """Everything that workers write, until all have ended."""
    with selectors.DefaultSelector() as selector:
        for reading in readings:
            selector.register(reading, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = _frame(key.fd)
                if data is None:
                    selector.unregister(key.fd)
                else:
                    outcome: Outcome = pickle.loads(data)
                    yield outcome


def _frame(reading: int) -> bytes | None:
    head = _exactly(reading, 4)
    return None if head is None else _exactly(reading, int.from_bytes(head, "big"))


def _exactly(reading: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = os.read(reading, size - len(data))
        if not part:
            return None
        data += part
    return data


def _send(writing: int, outcome: Outcome) -> None:
    data = pickle.dumps(outcome)
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(writing, data) :]


def _worker(
    writing: int,
    seeds: list[int],
    profile: Callable[[int], Profile],
    mutate: Mutation | None,
    prepare: Prepare | None,
    trace: bool,
) -> None:
    """A process that runs seeds, each in a fork of its own. Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gc.disable()
        warm_up()
        gc.freeze()
        for seed in seeds:
            folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_memory()))
            child = os.fork()
            if child == 0:
                _child(writing, seed, profile(seed), mutate, prepare, trace, folder)
            _, code = os.waitpid(child, 0)
            shutil.rmtree(folder, ignore_errors=True)
            if code:
                _send(writing, Outcome(seed, [f"sim: the process ended with status {code}"]))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def warm_up() -> None:
    """Runs a seed without faults here, so that forks find everything imported and compiled."""
    # Pure and slow: a search for the least epsilon.
    accounting.epsilon = functools.lru_cache(maxsize=None)(accounting.epsilon)
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_memory()))
    try:
        the_template().copy_to(folder)
        _KEPT.append(simulate(0, Profile(), folder, None, False))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def the_template() -> Template:
    """State directories to copy; made once in each process."""
    if not _TEMPLATE:
        folder = Path(tempfile.mkdtemp(prefix="sim-template-", dir=_memory()))
        _TEMPLATE.append(make_template(folder))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _TEMPLATE[0]


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _child(
    writing: int,
    seed: int,
    profile: Profile,
    mutate: Mutation | None,
    prepare: Prepare | None,
    trace: bool,
    folder: Path,
) -> None:
    """One seed. Never returns."""
    status = 1
    try:
        signal.alarm(WALL_S)
        the_template().copy_to(folder)
        with (mutate or nullcontext)():
            outcome = simulate(seed, profile, folder, prepare, trace)
        _send(writing, outcome)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def simulate(
    seed: int, profile: Profile, folder: Path, prepare: Prepare | None, trace: bool
) -> Outcome:
    """Runs one seed here. The interpreter is of no use for anything else afterwards."""
    rng = random.Random(f"run {seed}")
    loop = SimLoop(rng, shuffled=profile.shuffled)
    asyncio.set_event_loop(loop)
    world = World(loop, rng, profile, the_template(), folder)
    _KEPT.append(world)
    install(world.machines)
    if prepare is not None:
        prepare(seed, world)
    outcome = Outcome(seed)
    scenario = _Scenario(world, profile, rng, outcome)
    try:
        loop.run_until_complete(scenario.run())
    except (Deadlock, _Endless) as error:
        outcome.violations.append(f"I8: {type(error).__name__}: {error}")
    outcome.seen += world.seen + world.net.seen
    for host, event, _ in world.machines.lines:
        outcome.seen[f"log_{host[0]}_{event}"] += 1
    outcome.steps = loop.steps
    outcome.virtual_s = loop.now
    lines = [f"{at:.6f} {who} {what}" for at, who, what in loop.trace]
    outcome.digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
    if trace:
        outcome.trace = lines
    return outcome


class _Endless(Exception):
    """Too many steps: something goes round in circles."""


class _Scenario:
    """From the first start to the last check."""

    def __init__(
        self, world: World, profile: Profile, rng: random.Random, outcome: Outcome
    ) -> None:
        self._world = world
        self._profile = profile
        self._outcome = outcome
        self._operator = Operator(world, profile, rng)
        self._crowd = Crowd(world, profile, self._operator, rng)
        self._nemesis = Nemesis(world, profile, rng)
        self._artefacts: dict[str, set[bytes]] = {}

    async def run(self) -> None:
        world = self._world
        for name in reversed(world.names):
            world.boot(name)
        operator = asyncio.create_task(self._operator.run())
        self._crowd.start()
        await self._nemesis.run()
        if not await self._lively(operator):
            return
        if self._profile.purge:
            await self._reach(max(self._ends()) + 3)
        # Everybody dies once more and comes back.
        for name in world.names:
            world.kill(name)
        await asyncio.sleep(1.0)
        world.heal()
        await asyncio.sleep(3.0)
        await self._read()
        self._check()

    async def _lively(self, operator: "asyncio.Task[None]") -> bool:
        """Whether everybody is done within `LIVELY_S`."""
        loop = self._world.loop
        end = loop.now + LIVELY_S
        while loop.now < end:
            await asyncio.sleep(0.5)
            if loop.steps > STEPS_MAX:
                raise _Endless(f"{loop.steps} steps")
            await self._read()
            devices = self._crowd.devices
            if operator.done() and all(it.finished for it in devices) and self._all_ended():
                return True
        late = [it.name for it in self._crowd.devices if not it.finished]
        phases = {key.hex()[:8]: str(it) for key, it in self._phases().items()}
        self._say(f"I8: opened {operator.done()}, without an answer {late}, rounds {phases}")
        self._check()
        return False

    def _say(self, text: str) -> None:
        self._outcome.violations.append(text)

    def _phases(self) -> dict[bytes, Phase]:
        with closing(sqlite3.connect(self._world.folder / "collector" / FILE)) as connection:
            rows = connection.execute("SELECT round, phase FROM rounds").fetchall()
        return {row[0]: Phase(row[1]) for row in rows}

    def _all_ended(self) -> bool:
        ended = (Phase.RELEASED, Phase.ABANDONED, Phase.DAMAGED)
        return all(phase in ended for phase in self._phases().values())

    def _ends(self) -> list[float]:
        return [self._operator.closes + self._profile.answer_s]

    async def _reach(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._world.loop.now))

    async def _read(self) -> None:
        """Reads what is published; it must be the same each time."""
        for round_id, phase in self._phases().items():
            if phase is not Phase.RELEASED:
                continue
            http = Http("http://collector:80", timeout_s=5.0)
            try:
                reply = await http.request("GET", f"/v1/releases/{round_id.hex()}")
            except TransportError:
                continue
            finally:
                http.close()
            if reply.status == 200:
                found = self._artefacts.setdefault(round_id.hex(), set())
                found.add(reply.body)
                if len(found) > 1:
                    self._say("I7: a release changed")

    def _check(self) -> None:
        world = self._world
        checks = Checks(
            world.folder,
            self._crowd.devices,
            forgot=world.forgot,
            clocks="clock" in self._profile.actions,
        )
        checks.run()
        self._outcome.violations += checks.violations
        self._outcome.phases = checks.phases
        for phase in checks.phases:
            self._outcome.seen[f"round_{phase}"] += 1
        for device in self._crowd.devices:
            for receipt in device.receipts:
                self._outcome.seen[f"client_{receipt.outcome}_{receipt.token}"] += 1
        for fault in world.loop.faults:
            self._say(f"fault: {fault}")
