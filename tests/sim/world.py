"""A deployment inside the loop: collectors, helpers, store, and the means to break them.

The programs are the product's own, from `running` and `serve` down to their last coroutine. The
store ends below `RedisStore`: see `store`.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import redis.exceptions

import helper.app
from collector.config import Config
from collector.node import Node, running
from collector.redis_store import REPLY_TIMEOUT_S
from collector.store import StoreLost
from dandelion.encoding import identity_of
from helper.config import Config as HelperConfig
from tests.sim.loop import WORLD, Process, SimLoop, settle
from tests.sim.machine import EPOCH, Host, Machines
from tests.sim.net import Network, Quality
from tests.sim.profile import Profile
from tests.sim.promises import Promises
from tests.sim.store import Channel, SimServer
from tests.sim.template import HELPERS, Template

T = TypeVar("T")
RESTART_S: Final = 1.0
SYNC_S: Final = 1.0
ANSWER_DELAY_MS: Final = 50
SCOPE: Final = {
    "epsilon": 100_000.0,
    "delta": 1e-8,
    "period_s": 86_400,
    "open_rounds_max": 1_000,
}


class World:
    """All parties of one seed, by name: c1 to c3, h1 and h2, s for the store."""

    def __init__(
        self, loop: SimLoop, rng: random.Random, profile: Profile, template: Template, folder: Path
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.profile = profile
        self.template = template
        self.folder = folder
        self.net = Network(loop, rng)
        self.machines = Machines(loop, rng)
        self.server = SimServer(profile.policy, rng, lambda: EPOCH + loop.now)
        self.nodes: dict[str, Node] = {}
        self.collectors = [f"c{number + 1}" for number in range(profile.collectors)]
        self.seen = self.machines.seen
        self.promises = Promises()
        self.rolled_back = False
        # Whether the store has forgotten a transaction that it had confirmed.
        # What becomes of the so-manyth trip to the store: `request`, `reply` or `late`.
        self.trips = 0
        self.lost_trips: dict[int, str] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._carriers: dict[tuple[Any, bytes], set[str]] = {}
        self._waiting: dict[asyncio.Future[Any], Process] = {}
        self._configs()
        loop.disk_delay = lambda: profile.disk_s * rng.random()

    @property
    def names(self) -> list[str]:
        """Everybody who can be started and killed."""
        return [*self.collectors, *HELPERS, "s"]

    @property
    def forgot(self) -> bool:
        """Whether the store has lost something that it had confirmed."""
        return self.rolled_back or self.server.forgotten > 0

    def host(self, name: str) -> Host:
        """A party's machine."""
        return self.machines.host(name)

    # Life and death

    def boot(self, name: str) -> None:
        """Starts a party that is down."""
        host = self.host(name)
        if host.up:
            return
        host.boots += 1
        process = host.process = Process(name, host.boots)
        main = self._main(process)
        task = self.loop.start(process, main)
        task.add_done_callback(
            lambda done: self._ended(host, process, done), context=self.loop.context_of(WORLD)
        )

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.host(name).process
        if process is not None and process.alive:
            self.loop.kill(process)
            if name == "s":
                self._store_gone()

    def terminate(self, name: str) -> None:
        """SIGTERM: the process drains and ends."""
        stop = self._stops.get(name)
        if self.host(name).up and stop is not None:
            stop.set()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        process = self.host(name).process
        if process is not None and process.alive and not process.stopped:
            self.loop.stop_process(process)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        process = self.host(name).process
        if process is not None and process.stopped:
            self.loop.continue_process(process)

    def roll_back(self, snapshot: object) -> None:
        """Puts an old copy of the store's files in their place; the store is down."""
        self.rolled_back = True
        self.server.restore(snapshot)

    def _main(self, process: Process) -> Coroutine[Any, Any, None]:
        stop = self._stops[process.host] = asyncio.Event()
        if process.host == "s":
            return self._store()
        if process.host in HELPERS:
            config = self._helpers[process.host]
            make_app: Any = helper.app.make_app
            make_app.__kwdefaults__ = {"clock": self.machines.time, "steady": self.loop.time}
            return helper.app.serve(config, stop)
        return self._collector(process, stop)

    def _ended(self, host: Host, process: Process, task: "asyncio.Task[None]") -> None:
        error = task.exception()
        if error is not None:
            self.seen[f"start_failed_{type(error).__name__}"] += 1
            self.loop.note(f"failed {host.name}: {error!r}")
        self.loop.kill(process)
        self.loop.call_later(RESTART_S, self._again, host, process)

    def _again(self, host: Host, process: Process) -> None:
        """A supervisor starts what ended by itself."""
        if host.process is process:
            self.boot(host.name)

    async def _collector(self, process: Process, stop: asyncio.Event) -> None:
        store = self.server.client(self._channel(process))
        self._watch(store, process)
        first = process.host == "c1"
        clock = self.machines.time
        async with running(self._config, first=first, store=store, clock=clock) as node:
            self.nodes[process.host] = node
            await stop.wait()

    def _watch(self, store: Any, process: Process) -> None:
        """Counts how commits end, and keys that come through several processes."""
        commit = store.commit

        async def watched(lane: Any, epoch: Any, seq: int, entries: Any, total: bytes) -> Any:
            for entry in entries:
                hosts = self._carriers.setdefault((lane, entry.epk), set())
                if hosts and process.host not in hosts:
                    self.seen["two_collectors"] += 1
                hosts.add(process.host)
            try:
                result = await commit(lane, epoch, seq, entries, total)
            except StoreLost:
                self.seen["commit_lost"] += 1
                raise
            self.seen[f"commit_{result.code.lower()}"] += 1
            return result

        store.commit = watched

    # The store

    async def _store(self) -> None:
        self.server.restart()
        # A server that cannot make durable what it is told ends by itself.
        while self.server.up:
            await asyncio.sleep(SYNC_S)
            if self.profile.policy == "everysec":
                self.server.sync()
        self.seen["store_disk_full"] += 1

    def _store_gone(self) -> None:
        self.server.crash()
        for future, process in list(self._waiting.items()):
            at = self.loop.now + self.rng.random() * 0.01
            self._fail(future, process, at)

    def _channel(self, process: Process) -> Channel:
        """The network between one process and the store: each call is a trip of its own."""
        link = self.net.link(process.host, "s")
        loop, rng, seen = self.loop, self.rng, self.seen

        def lost(what: str, chance: float) -> bool:
            if self.lost_trips.get(self.trips) == what or (chance and rng.random() < chance):
                seen[f"store_drop_{what}"] += 1
                return True
            return False

        def arrive(future: "asyncio.Future[T]", call: Callable[[], T], unheard: bool) -> None:
            result, error = None, None
            try:
                result = call()
            except redis.exceptions.RedisError as failure:
                error = failure
            if not process.alive:
                seen["store_zombie_call"] += 1
                return
            if future.done():
                seen["store_late_call"] += 1
                return
            if unheard:
                self._fail(future, process, loop.now + 0.001)
                return
            at = max(loop.now, link.cut_until) + self.net.delay(link)
            loop.call_at(at, settle, future, result, error, context=loop.context_of(process))

        async def trip(call: Callable[[], T]) -> T:
            future: asyncio.Future[T] = loop.create_future()
            there = self.host("s").process
            if there is None or not there.alive:
                await asyncio.sleep(0.001)
                raise redis.exceptions.ConnectionError("refused")
            self._waiting[future] = process
            self.trips += 1
            at = max(loop.now, link.cut_until) + self.net.delay(link)
            if self.lost_trips.get(self.trips) == "late":
                at += REPLY_TIMEOUT_S + 1
            if lost("request", link.quality.drop_request):
                self._fail(future, process, at)
            else:
                unheard = lost("reply", link.quality.drop_reply)
                loop.call_at(at, arrive, future, call, unheard, context=loop.context_of(there))
            timer = loop.call_later(REPLY_TIMEOUT_S, self._late, future)
            try:
                return await future
            finally:
                timer.cancel()
                self._waiting.pop(future, None)

        return trip

    def _late(self, future: "asyncio.Future[Any]") -> None:
        if not future.done():
            self.seen["store_timeout"] += 1
            future.set_exception(redis.exceptions.TimeoutError("late"))

    def _fail(self, future: "asyncio.Future[Any]", process: Process, at: float) -> None:
        error = redis.exceptions.ConnectionError("reset")
        context = self.loop.context_of(process)
        self.loop.call_at(at, settle, future, None, error, context=context)

    # Configuration

    def _configs(self) -> None:
        template = self.template
        identities = {name: _identity(self.folder / name) for name in HELPERS}
        self._config = Config.model_validate(
            {
                "state_dir": self.folder / "collector",
                "redis_url": "unix:///nowhere",
                "public": {"host": "collector", "port": 80},
                "admin": {"host": "admin", "port": 81},
                "helpers": [
                    {
                        "url": f"http://{name}:80",
                        "identity": identities[name].hex(),
                        "token": f"token-of-{name}",
                    }
                    for name in HELPERS
                ],
                "lifetimes": {"seal_grace_s": 0.5, "answer_s": self.profile.answer_s},
                "limits": {"answer_s": 5, "helper_retry_max_s": 4, "helper_timeout_s": 8},
                "drain_s": 5,
            }
        )
        self._helpers = {
            name: HelperConfig.model_validate(
                {
                    "listen": f"{name}:80",
                    "state_dir": self.folder / name,
                    "collectors": (template.collector.hex(),),
                    "token_sha256": (hashlib.sha256(f"token-of-{name}".encode()).hexdigest(),),
                    # An operator who keeps trying reserves budget with whichever helper is there.
                    "scopes": {"test": SCOPE},
                    "floors": {"cohort_min": 1, "per_round": {"epsilon": 1_000.0, "delta": 1e-8}},
                    "answer_delay_ms": ANSWER_DELAY_MS,
                    "threads": 1,
                }
            )
            for name in HELPERS
        }

    # Quality of links

    def trouble(self) -> None:
        """Links become what the profile says."""
        for kind, it in self.profile.trouble.items():
            self.net.qualities[kind] = self._quality(kind)
            quality = self.net.qualities[kind]
            quality.slow, quality.slow_s = it.slow, it.slow_s
            quality.drop_request, quality.drop_reply = it.drop_request, it.drop_reply

    def heal(self) -> None:
        """Everything works again, and everybody runs."""
        for quality in self.net.qualities.values():
            quality.slow = quality.drop_request = quality.drop_reply = 0.0
        self.net.heal()
        for host in self.machines.hosts.values():
            host.ahead_s, host.disk_full = 0.0, False
            if not host.planted:
                host.dies_at_disk = 0
        self.server.disk_full = False
        for name in self.names:
            self.resume(name)
            self.boot(name)

    def _quality(self, kind: str) -> Quality:
        return self.net.qualities.setdefault(kind, Quality())


def _identity(state_dir: Path) -> bytes:
    return identity_of((state_dir / "identity").read_bytes())
