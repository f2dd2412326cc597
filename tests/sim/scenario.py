"""One seed, from the first start to the last check.

Faults for a while; then everything works again and everybody must come to an end (I8); then all
die once more and come back, and what is on their disks must agree (I1 to I7).
"""

import asyncio
import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_py.transport import TransportError
from collector.database import FILE
from dandelion.round import FINAL, Phase
from tests.sim.checks import Checks
from tests.sim.loop import Deadlock, SimLoop
from tests.sim.machine import install
from tests.sim.nemesis import Nemesis
from tests.sim.parties import Crowd, Http, Operator
from tests.sim.profile import Profile
from tests.sim.template import Template
from tests.sim.world import World

# Virtual seconds after the faults within which everybody must be done.
LIVELY_S: Final = 90.0
STEPS_MAX: Final = 400_000

# What the log may show of a disk that is full; of anything else it may show nothing.
OF_A_FULL_DISK: Final = ("OperationalError", "OSError", "RuleError")

Prepare = Callable[[int, World], None]

# What a finished seed leaves behind: nothing of it may be collected, or the dead would stir.
_KEPT: Final[list[object]] = []


@dataclass
class Outcome:
    """What a seed came to. `violations` is empty if all invariants held."""

    seed: int
    violations: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    # What can be counted and then be made to fail: see `points`.
    counts: dict[str, int] = field(default_factory=dict)
    virtual_s: float = 0.0
    digest: str = ""
    trace: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def simulate(
    seed: int,
    profile: Profile,
    template: Template,
    folder: Path,
    prepare: Prepare | None = None,
    *,
    trace: bool = False,
    entropy: int | None = None,
) -> Outcome:
    """Runs one seed here. The interpreter is of no use for anything else afterwards."""
    rng = random.Random(f"run {seed if entropy is None else entropy}")
    loop = SimLoop(rng, shuffled=profile.shuffled)
    asyncio.set_event_loop(loop)
    world = World(loop, rng, profile, template, folder)
    _KEPT.append(world)
    install(world.machines)
    world.promises.watch()
    if prepare is not None:
        prepare(seed, world)
    outcome = Outcome(seed)
    scenario = _Scenario(world, profile, rng, outcome)
    try:
        loop.run_until_complete(scenario.run())
    except (Deadlock, _Endless) as error:
        outcome.violations.append(f"I8: {type(error).__name__}: {error}")
    outcome.seen += world.seen + world.net.seen
    for host, event, fields in world.machines.lines:
        outcome.seen[f"log_{host[0]}_{event}"] += 1
        if "error" in fields:
            outcome.seen[f"error_{event}_{fields['error']}"] += 1
            outcome.errors.append(f"{host} {event} {fields['error']} {fields['at']}")
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
        self._nemesis = Nemesis(world, profile, self._operator, rng)
        self._artefacts: dict[str, set[bytes]] = {}
        self._unkept: set[bytes] = set()
        self._seals: dict[tuple[bytes, int], tuple[object, ...]] = {}
        self._database = sqlite3.connect(world.folder / "collector" / FILE, isolation_level=None)
        self._version = -1
        self._known: dict[bytes, Phase] = {}

    async def run(self) -> None:
        world = self._world
        for name in reversed(world.names):
            world.boot(name)
        operator = asyncio.create_task(self._operator.run())
        self._crowd.start()
        observing = asyncio.create_task(self._observe())
        await self._nemesis.run()
        observing.cancel()
        if not await self._lively(operator):
            return
        if self._profile.purge:
            await self._reach(max(self._ends()) + 3)
        self._unkept = world.promises.unkept()
        self._count()
        # Everybody dies once more and comes back.
        for name in world.names:
            world.kill(name)
        await asyncio.sleep(1.0)
        world.heal()
        await asyncio.sleep(3.0)
        await self._read()
        self._check()

    async def _observe(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self._phases()

    def _count(self) -> None:
        world, counts = self._world, self._outcome.counts
        for name in world.names:
            process = world.host(name).process
            if process is not None:
                counts[f"steps {name}"] = process.steps
            counts[f"disk {name}"] = world.host(name).disk_steps
        counts["trips"] = world.trips
        counts |= {f"writes {kinds}": number for kinds, number in world.net.writes.items()}

    async def _lively(self, operator: "asyncio.Task[None]") -> bool:
        """Whether everybody is done in time."""
        loop = self._world.loop
        end = loop.now + LIVELY_S
        if "clock" in self._profile.actions:
            # A helper whose clock was ahead has erased its root: the round ends when it expires.
            end = max(end, max(self._ends()) + 5)
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
        """Phases of all rounds; looks at the sets while it is there."""
        database = self._database
        [version] = database.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            rows = database.execute("SELECT round, phase FROM rounds").fetchall()
            self._known = {round_id: Phase(phase) for round_id, phase in rows}
            sealed = database.execute("SELECT round, shard, n, set_digest, y FROM seals")
            for round_id, *seal in sealed.fetchall():
                first = self._seals.setdefault((round_id, seal[0]), tuple(seal))
                if first != tuple(seal):
                    self._say("I6: a set changed after it was sealed")
        return self._known

    def _all_ended(self) -> bool:
        return all(phase in FINAL for phase in self._phases().values())

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
            unkept=self._unkept,
            seals=self._seals,
            clocks="clock" in self._profile.actions,
        )
        checks.run()
        self._outcome.violations += checks.violations
        self._outcome.phases = checks.phases
        self._outcome.seen += checks.seen
        for phase in checks.phases:
            self._outcome.seen[f"round_{phase}"] += 1
        for device in self._crowd.devices:
            for receipt in device.receipts:
                self._outcome.seen[f"client_{receipt.outcome}_{receipt.token}"] += 1
        for fault in world.loop.faults:
            self._say(f"fault: {fault}")
        full = "disk_full" in self._profile.actions
        for host, event, fields in world.machines.lines:
            if "error" in fields and not (full and fields["error"] in OF_A_FULL_DISK):
                self._say(f"fault: {host} logged {event}: {fields['error']} at {fields['at']}")
