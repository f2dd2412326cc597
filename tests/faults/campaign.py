"""One run: rounds with clients, faults drawn from a seed, then peace, then the verdicts.

The seed decides which faults come when, how many clients a round has and what they do; how far
each process had come when a fault hits is the machine's. A run that fails keeps its folder with
the log of every process.
"""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from dandelion.round import Phase
from tests.faults.clients import MANY, Crowd
from tests.faults.deployment import Deployment, Setup
from tests.faults.oracle import RoundRecord, judge, phases_of
from tests.faults.report import Expect, Report
from tests.faults.services import NotReady

PEACE_S: Final = 60.0
_POLL_S: Final = 0.25
_LATE_CLIENTS: Final = 5
_DISK: Final = ("OperationalError", "OSError")


@dataclass
class Run:
    """A deployment under test: its rounds, and what was done to it."""

    name: str
    seed: int
    it: Deployment
    profile: "Profile"
    rng: random.Random
    records: dict[str, RoundRecord] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    # What contradicts a profile's own expectation, beside the invariants.
    faults: list[str] = field(default_factory=list)
    # Held while the collector's clock is wrong: a round opened then would open some other day.
    right_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sending: set["asyncio.Task[None]"] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)

    async def open(
        self, duration_s: int, clients: int, *, spread: float = 1.1
    ) -> RoundRecord | None:
        """Opens a round and lets clients loose on it; None if it was not confirmed."""
        d = await self.it.open(duration_s)
        if d is None:
            return None
        rng, attempts = random.Random(self.rng.random()), self.profile.attempts
        crowd = await asyncio.to_thread(Crowd, d, clients, rng, attempts=attempts)
        record = self.records.setdefault(d.round_id.hex(), RoundRecord(d.round_id.hex()))
        record.crowd = crowd
        task = asyncio.create_task(crowd.run(self.it.public, spread * duration_s))
        self._sending.add(task)
        return record

    async def watch(self) -> None:
        """Follows the phases of all rounds and reads every artefact, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_POLL_S)

    async def look(self) -> bool:
        """Looks at every round once; whether the collector answered."""
        # One at a time: answers that overtake each other would show phases in the wrong order.
        async with self._looking:
            return await self._look()

    async def _look(self) -> bool:
        status, shown = await self.it.admin("GET", "rounds")
        if status != 200:
            return False
        for round_id, (phase, reason) in phases_of(shown).items():
            record = self.records.setdefault(round_id, RoundRecord(round_id))
            record.saw(phase)
            record.reason = reason
            if phase is Phase.RELEASED and not record.artefacts:
                await self.read(record)
        return True

    async def read(self, record: RoundRecord) -> None:
        """Reads the artefact of a round as anybody may."""
        status, body = await self.it.get(f"/v1/releases/{record.round_id}")
        if status == 200:
            record.artefacts.add(body)

    def heal(self) -> None:
        """Ends every fault that lasts."""
        self.it.heal()
        for service in self.it.services.values():
            service.signal(signal.SIGCONT)

    async def settle(self, seconds: float = PEACE_S) -> None:
        """After the last fault: waits until clients and rounds are done, or time is up."""
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for name in self.it.services:
                    await self.it.services[name].start()
                await asyncio.gather(*self._sending)
        while time.monotonic() < deadline:
            if await self.look() and all(it.ended for it in self.records.values()):
                break
            await asyncio.sleep(_POLL_S)
        await self.end_sending()
        for record in self.records.values():
            await self.read(record)
            # In a damaged round nobody is told anything else any more, and a store that was
            # restored may have forgotten who is in a round that is over.
            forgetful = Phase.DAMAGED in (*record.phases[-1:], *self.profile.allowed)
            if record.crowd is not None and not forgetful:
                record.late += await record.crowd.repeat(self.it.public, _LATE_CLIENTS)

    async def acked(self, count: int, seconds: float = 60) -> None:
        """Waits until so many clients, of all rounds together, were told yes.

        Raises:
            TimeoutError: they were not, in time.
        """
        async with asyncio.timeout(seconds):
            while self.acknowledged < count:  # noqa: ASYNC110 - clients have no event for it
                await asyncio.sleep(0.02)

    @property
    def acknowledged(self) -> int:
        """How many clients were told yes so far."""
        return sum(len(it.crowd.acked) for it in self.records.values() if it.crowd is not None)

    async def end_sending(self) -> None:
        """Clients that still wait give up."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def finish(self, seconds: float = PEACE_S) -> Report:
        """Heals everything, waits until it has settled, stops everything, and judges."""
        it, profile = self.it, self.profile
        self.heal()
        await self.settle(seconds)
        self.faults += await _stopped(it, profile)
        verdicts = judge(it, self.records.values(), profile.allowed)
        await it.close()
        self.faults += [f"left over: {process}" for process in it.left]
        self.faults += _complaints(it)
        weather = sum((weather.counts for weather in it.weather.values()), Counter[str]())
        crowds = [record.crowd for record in self.records.values() if record.crowd is not None]
        report = Report(
            self.name,
            self.seed,
            time.monotonic() - self._started,
            verdicts,
            self.injected + weather,
            sum((crowd.answers for crowd in crowds), Counter[str]()),
            self.faults,
            profile.expect,
            it.folder,
        )
        if report.passed:
            it.discard()
        return report


Injector = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Profile:
    """A kind of run.

    Attributes:
        setup: the deployment.
        injectors: each runs until it is cancelled.
        allowed: final phases beside the ones that reports call for.
        exits: services that may end by themselves, since a fault makes them.
        round_s: shortest and longest time for which a round takes reports.
        attempts: how often a client sends. Who sends once must be told if it was counted.
    """

    setup: Setup = field(default_factory=Setup)
    injectors: Collection[Injector] = ()
    allowed: Collection[Phase] = ()
    exits: Collection[str] = ()
    expect: Expect = Expect.PEACE
    round_s: tuple[int, int] = (3, 8)
    attempts: int = MANY


@asynccontextmanager
async def trial(name: str, seed: int, profile: Profile) -> AsyncIterator[Run]:
    """A deployment under test, followed by `watch`. Nothing of it is left running at the end."""
    rng = random.Random(f"{name} {seed}")
    async with Deployment(profile.setup, rng) as it:
        run = Run(name, seed, it, profile, random.Random(rng.random()))
        watching = asyncio.create_task(run.watch())
        try:
            yield run
        finally:
            watching.cancel()
            await run.end_sending()


async def campaign(name: str, seed: int, profile: Profile, seconds: float) -> Report:
    """Faults for so many seconds, then peace until everything is settled."""
    async with trial(name, seed, profile) as run:
        tasks = [asyncio.create_task(_rounds(run))]
        tasks += [asyncio.ensure_future(injector(run)) for injector in profile.injectors]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        run.faults += [f"the driver itself: {it!r}" for it in ended if isinstance(it, Exception)]
        return await run.finish()


async def _rounds(run: Run) -> None:
    """One round after another, some at the same time."""
    while True:
        duration, clients = run.rng.randint(*run.profile.round_s), run.rng.randint(40, 200)
        async with run.right_time:
            opened = await run.open(duration, clients)
        await asyncio.sleep(run.rng.uniform(0.5, 2.5) if opened else 0.3)


async def _stopped(it: Deployment, profile: Profile) -> list[str]:
    """Stops everything in good order; what did not end as it should, now or earlier."""
    found = []
    try:
        statuses = await it.stop()
    except NotReady as error:
        return [str(error)]
    found += [f"the {name} ended with {status}" for name, status in statuses.items() if status]
    for name, service in it.services.items():
        if service.ends and name not in profile.exits:
            found.append(f"the {name} ended by itself: {dict(service.ends)}")
    return found


def _complaints(it: Deployment) -> list[str]:
    """Faults of ours that a process has logged, by where they were raised.

    A disk that fails is a fault of the run, and so is a line that kill -9 cut short.
    """
    found: Counter[str] = Counter()
    for name, service in it.services.items():
        if name == "store" or not service.log.exists():
            continue
        for text in service.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                line = json.loads(text)
                # A helper gives an answer up that it could not store.
                given_up = line.get("event") == "answer_failed" and line["error"] == "RuleError"
                if line.get("error") not in (None, *_DISK) and not given_up:
                    what = line.get("event") or line.get("logger")
                    found[f"{name} logged {what}: {line['error']} at {line.get('at')}"] += 1
    return [f"{n} x {line}" for line, n in found.items()]
