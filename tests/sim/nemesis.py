"""Who breaks things: draws a fault now and then, and mends it some time later."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from tests.sim.loop import WORLD
from tests.sim.parties import Operator
from tests.sim.profile import Profile
from tests.sim.template import HELPERS
from tests.sim.world import World

PAUSE_S: Final = 30.0
DISK_STEPS_MAX: Final = 14
# What a program logs just before, or just after, it does something that must be one step.
EVENTS: Final = (
    "descriptor_signed",
    "round_opened",
    "round_closing",
    "round_sealed",
    "ask_accepted",
    "answer_stored",
    "round_released",
)


class Nemesis:
    """The faults of a profile, until `run` returns; then everything has been mended."""

    def __init__(
        self, world: World, profile: Profile, operator: Operator, rng: random.Random
    ) -> None:
        self._world = world
        self._operator = operator
        self._profile = profile
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._snapshots: list[object] = []
        self._acts: dict[str, Callable[[], Awaitable[None]]] = {
            "kill_collector": lambda: self._kill(self._any(world.collectors)),
            "kill_helper": lambda: self._kill(self._any(HELPERS)),
            "kill_store": lambda: self._kill("s"),
            "kill_at_disk": self._kill_at_disk,
            "kill_at_event": self._kill_at_event,
            "drain": self._drain,
            "pause": self._pause,
            "partition": self._partition,
            "cut_at_close": self._cut_at_close,
            "clock": self._clock,
            "disk_full": self._disk_full,
            "rollback": self._rollback,
        }

    async def run(self) -> None:
        """Breaks and mends for `fault_s`, then mends all."""
        world, profile, rng = self._world, self._profile, self._rng
        end = world.loop.now + profile.fault_s
        world.trouble()
        while world.loop.now < end:
            await asyncio.sleep(min(rng.expovariate(1 / profile.every_s), end - world.loop.now))
            if "rollback" in profile.actions and rng.random() < 0.5:
                self._snapshots.append(world.server.snapshot())
            if profile.actions and world.loop.now < end:
                act = self._acts[self._any(profile.actions)]
                task = asyncio.create_task(self._do(act))
                self._tasks.add(task)
        for task in self._tasks:
            task.cancel()
        world.machines.on_event = lambda host, event: None
        world.heal()

    async def _do(self, act: Callable[[], Awaitable[None]]) -> None:
        await act()

    def _any(self, names: "tuple[str, ...] | list[str]") -> str:
        return names[int(self._rng.random() * len(names))]

    async def _down(self) -> None:
        await asyncio.sleep(self._rng.expovariate(1 / self._profile.down_s))

    def _saw(self, what: str) -> None:
        self._world.seen[what] += 1

    async def _kill(self, name: str) -> None:
        if self._world.host(name).up:
            self._saw(f"kill_{name[0]}")
            self._world.kill(name)
            await self._down()
        self._world.boot(name)

    async def _kill_at_disk(self) -> None:
        name = self._any([*self._world.collectors[:1], *HELPERS])
        host = self._world.host(name)
        host.dies_at_disk = 1 + int(self._rng.random() * 6)
        await asyncio.sleep(2.0)
        host.dies_at_disk = 0
        self._world.boot(name)

    async def _kill_at_event(self) -> None:
        """The next time that something is logged, somebody dies a few steps of a disk later."""
        world, rng, wanted = self._world, self._rng, self._any(EVENTS)
        met = asyncio.Event()
        victim: list[str] = []

        def on_event(host: str, event: str) -> None:
            if event == wanted and not victim:
                victim.append("c1" if rng.random() < 0.6 else host)
                world.host(victim[0]).dies_at_disk = 1 + int(rng.random() * DISK_STEPS_MAX)
                world.loop.call_soon(met.set, context=world.loop.context_of(WORLD))

        world.machines.on_event = on_event
        await met.wait()
        self._saw("kill_at_event")
        await asyncio.sleep(2.0)
        world.host(victim[0]).dies_at_disk = 0
        world.boot(victim[0])

    async def _cut_at_close(self) -> None:
        """A collector loses the store just before a round closes, and finds it after the seal."""
        world, rng = self._world, self._rng
        ends = self._operator.closes
        start = ends - rng.uniform(0.1, 1.5)
        if start < world.loop.now:
            return
        await asyncio.sleep(start - world.loop.now)
        self._saw("cut_at_close")
        name = world.collectors[-1]
        world.net.link(name, "s").cut_until = ends + rng.uniform(0.2, 4.0)

    async def _drain(self) -> None:
        name = self._any([*self._world.collectors, *HELPERS])
        self._saw(f"drain_{name[0]}")
        self._world.terminate(name)
        await asyncio.sleep(0)

    async def _pause(self) -> None:
        name = self._any(self._world.names)
        self._saw(f"pause_{name[0]}")
        self._world.pause(name)
        seconds = self._rng.choice((0.5, 6.0, PAUSE_S))
        await asyncio.sleep(seconds)
        if seconds == PAUSE_S:
            self._saw("pause_long")
        self._world.resume(name)

    async def _partition(self) -> None:
        one = self._any(self._world.collectors)
        other = self._any(["s", *HELPERS])
        self._saw("partition")
        link = self._world.net.link(one, other)
        link.cut_until = self._world.loop.now + self._rng.choice((0.3, 3.0, 12.0))
        await asyncio.sleep(0)

    async def _clock(self) -> None:
        group = self._rng.choice((self._world.collectors, HELPERS[:1], HELPERS[1:]))
        ahead = self._any_jump()
        self._saw("clock")
        for name in group:
            self._world.host(name).ahead_s = ahead
        await asyncio.sleep(self._rng.uniform(0.2, 4.0))
        for name in group:
            self._world.host(name).ahead_s = 0.0

    def _any_jump(self) -> float:
        jumps = self._profile.jumps_s or (5.0,)
        return jumps[int(self._rng.random() * len(jumps))]

    async def _disk_full(self) -> None:
        group = self._rng.choice((self._world.collectors, HELPERS[:1], HELPERS[1:], ["s"]))
        for name in group:
            if name == "s":
                self._world.server.disk_full = True
            self._world.host(name).disk_full = True
        await self._down()
        for name in group:
            if name == "s":
                self._world.server.disk_full = False
            self._world.host(name).disk_full = False
        if "s" in group and not self._world.server.up:
            self._world.kill("s")
            self._world.boot("s")

    async def _rollback(self) -> None:
        if not self._snapshots:
            return
        snapshot = self._any_snapshot()
        self._saw("rollback")
        self._world.kill("s")
        await self._down()
        if not self._world.host("s").up:
            self._world.roll_back(snapshot)
        self._world.boot("s")

    def _any_snapshot(self) -> object:
        return self._snapshots[int(self._rng.random() * len(self._snapshots))]
