"""Wiring: which parts one process consists of, in which order they start, and how they stop.

The first process takes reports, serves the admin interface and drives the rounds; the others only
take reports. All listen on the public port (`reuse_port`). A process that is told to stop says that
it is not ready, stops accepting, reads what is on its way, commits, answers, and ends. Being killed
at any moment instead is safe: nothing was acknowledged that is not stored.
"""

import asyncio
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from redis.asyncio import Redis

from collector import ledger, logs, redis_contract, registry
from collector.admin import ADMIN, Admin, admin_routes, door
from collector.anchors import AnchorFile
from collector.book import RoundBook
from collector.config import Config, Listen
from collector.database import FILE, Database
from collector.express import Express
from collector.handlers import PUBLIC, Public, cross_origin, paced, public_routes
from collector.health import Health, Inspected
from collector.helper_client import Helper, new_session
from collector.ingest import Ingest
from collector.metrics import Metrics, Snapshot
from collector.pace import Pace
from collector.problems import RETRY_S, fault, problems
from collector.processes import Supervisor
from collector.redis_cluster import Cluster
from collector.redis_contract import RedisInspection
from collector.redis_store import RedisStore, connect_any
from collector.rounds import Driver, Services
from collector.store import RoundStore, StoreUnavailable
from collector.tasks import end
from dandelion.encoding import identity_of
from dandelion.params import JSON_BYTES_MAX
from dandelion.round import Phase
from dandelion.service.http_guard import BACKLOG, Runner
from dandelion.service.identity import StateError, read_seed
from dandelion.service.problems import say_little

ANCHORS: Final = "anchors"
PORTS: Final = "ports.json"
_LOCK: Final = "lock"
STORE_WAIT_S: Final = 30.0
GAUGES_S: Final = 5.0

Clock = Callable[[], float]


@dataclass
class Node:
    """A running process. `driver` and what is called `admin` are of the first one only."""

    config: Config
    store: RoundStore
    database: Database
    book: RoundBook
    ingest: Ingest
    metrics: Metrics
    health: Health
    public_port: int
    runner: Runner
    admin_port: int = 0
    admin_runner: Runner | None = None
    driver: Driver | None = None
    supervisor: Supervisor | None = None
    stopping: bool = False
    _stops: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)

    @property
    def public_url(self) -> str:
        """Where the public interface is."""
        return f"http://{self.config.public.host}:{self.public_port}"

    @property
    def admin_url(self) -> str:
        """Where the admin interface is."""
        return f"http://{self.config.admin.host}:{self.admin_port}"


@asynccontextmanager
async def running(
    config: Config,
    *,
    first: bool = True,
    port: int | None = None,
    store: RoundStore | None = None,
    clock: Clock = time.time,
    worker_command: Callable[[int, int], list[str]] | None = None,
) -> AsyncIterator[Node]:
    """A process of the collector, from start to drained stop.

    Args:
        config: what it is told.
        first: whether it drives the rounds and serves the admin interface.
        port: the public port, if it is not the configured one.
        store: instead of Redis; then nothing is asked about its durability.
        clock: Unix seconds.
        worker_command: words that start worker n on port p; needed for more than one process.

    Raises:
        StateError: the state directory cannot be used.
        LossyStore: Redis may lose what it confirms.
        StoreUnavailable: Redis does not answer.
        OSError: an address cannot be listened on.
    """
    async with AsyncExitStack() as stack:
        seed = read_seed(config.state_dir)
        if first:
            _lock(stack, config.state_dir)
        inspected: Inspected | None = None
        if store is None:
            client = connect_any(config.redis_url, config.replicas)
            stack.push_async_callback(client.aclose)
            await _admit_store(client, config)
            inspected = RedisInspection(client)
            store = RedisStore(client, f"dandelion:{identity_of(seed).hex()[:16]}")
        database = Database(config.state_dir / FILE, read_only=not first)
        stack.callback(database.close)
        node = await _ingest_part(stack, config, store, inspected, database, clock, port)
        if first:
            await _first_part(stack, node, seed, inspected, clock, worker_command)
        logs.event("started", address=node.public_url)
        try:
            yield node
        finally:
            await _stop(node)
        logs.event("stopped")


async def _ingest_part(
    stack: AsyncExitStack,
    config: Config,
    store: RoundStore,
    inspected: Inspected | None,
    database: Database,
    clock: Clock,
    port: int | None,
) -> Node:
    metrics = Metrics()
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    anchors = stack.enter_context(AnchorFile(config.state_dir / ANCHORS, name))
    # Reads of the public have a thread of their own: they cannot hold up what the driver writes.
    reading = Database(config.state_dir / FILE, read_only=True)
    stack.callback(reading.close)
    ingest = Ingest(store, config.limits, anchors, metrics, clock, partial(_sealed, reading))
    book = RoundBook(store, reading, ingest.retire)
    limits = config.limits
    listener = _listen(config.public, port, shared=True)
    stack.callback(listener.close)
    app = web.Application(
        middlewares=[cross_origin(config.allowed_origins), paced, problems],
        client_max_size=JSON_BYTES_MAX,
    )
    health = Health(
        inspected,
        config.state_dir,
        clock=clock,
        queue=lambda: max(
            ingest.waiting_reports / limits.waiting_reports_max,
            ingest.waiting_bytes / limits.waiting_bytes_max,
        ),
        draining=lambda: node.stopping,
        allow_lossy=config.allow_lossy,
    )
    pace = Pace(config.pace, clock, time.monotonic)
    public = Public(config, book, ingest, reading, metrics, pace, health, clock)
    runner = Runner(app, limits, fault, Express(public))
    node = Node(
        config=config,
        store=store,
        database=database,
        book=book,
        ingest=ingest,
        metrics=metrics,
        health=health,
        public_port=listener.getsockname()[1],
        runner=runner,
    )
    app[RETRY_S] = config.pace.retry_s
    app[PUBLIC] = public
    app.on_response_prepare.append(say_little)
    app.add_routes(public_routes())
    await book.refresh()
    await node.health.check()
    for coroutine in (book.run(), node.health.run(), anchors.run()):
        _background(stack, coroutine)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    node._stops.append(site.stop)
    _background(stack, _count(node))
    return node


async def _first_part(
    stack: AsyncExitStack,
    node: Node,
    seed: bytes,
    inspected: Inspected | None,
    clock: Clock,
    worker_command: Callable[[int, int], list[str]] | None,
) -> None:
    config = node.config
    session = new_session()
    stack.push_async_callback(session.close)
    count = partial(node.metrics.count, "helper_requests_total")
    helpers = [
        Helper(session, peer, config.limits.helper_timeout_s, count) for peer in config.helpers
    ]
    services = Services(
        database=node.database,
        store=node.store,
        book=node.book,
        helpers=helpers,
        seed=seed,
        anchors_dir=config.state_dir / ANCHORS,
        lifetimes=config.lifetimes,
        limits=config.limits,
        clock=clock,
    )
    driver = node.driver = Driver(services, config.partitions)
    await driver.start()
    stack.push_async_callback(driver.stop)
    if config.workers > 1 and worker_command is not None:
        command = partial(_words, worker_command, node.public_port)
        supervisor = node.supervisor = Supervisor(command, config.workers - 1)
        node._stops.insert(0, partial(supervisor.stop, config.drain_s + config.probe_s + 5))
    if isinstance(inspected, RedisInspection):
        _background(stack, _gauge(node, inspected.client))
    app = web.Application(middlewares=[problems, door], client_max_size=JSON_BYTES_MAX)
    app[ADMIN] = Admin(config, node.database, driver, node.health, partial(_snapshots, node), clock)
    app.add_routes(admin_routes())
    app.on_response_prepare.append(say_little)
    listener = _listen(config.admin, None, shared=False)
    stack.callback(listener.close)
    runner = node.admin_runner = Runner(app, config.limits, fault)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    node.admin_port = listener.getsockname()[1]
    ports = {"public": node.public_port, "admin": node.admin_port, "pid": os.getpid()}
    _write(config.state_dir / PORTS, json.dumps(ports))
    logs.event("listening", address=node.admin_url)


async def _stop(node: Node) -> None:
    """Not ready; then no new connections; then everything that has come in is answered."""
    logs.event("stopping")
    node.stopping = True
    await asyncio.sleep(node.config.probe_s)
    node.ingest.draining = True
    await asyncio.gather(*(stop() for stop in node._stops))
    await node.ingest.drain(node.config.drain_s)


async def _admit_store(client: Redis | Cluster, config: Config) -> None:
    """Waits until Redis has loaded its data, then holds it to the contract."""
    deadline = time.monotonic() + STORE_WAIT_S
    while True:
        try:
            if config.allow_lossy:
                if await redis_contract.faults(client):
                    logs.event("store_lossy")
            else:
                await redis_contract.require(client)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.25)
        else:
            return


async def _sealed(database: Database, round_id: bytes, shard: int, epk: bytes) -> bool | None:
    look = partial(registry.in_seal, round_id=round_id, shard=shard, epk=epk)
    return await database.run(look)


async def _snapshots(node: Node) -> Mapping[str, Snapshot]:
    phases = await node.database.run(registry.count_by_phase)
    if node.driver is not None:
        node.metrics.set("driver_failures_total", node.driver.failed)
    for phase in Phase:
        node.metrics.set("rounds", phases.get(phase, 0), phase)
    node.metrics.set("ledger_entries", await node.database.run(ledger.count))
    workers = node.supervisor.snapshots if node.supervisor is not None else {}
    return {"0": node.metrics.snapshot()} | workers


async def _count(node: Node) -> None:
    """Copies what others keep into the metrics."""
    numbers, runner = node.metrics, node.runner
    while True:
        numbers.set("waiting_reports", node.ingest.waiting_reports)
        numbers.set("waiting_bytes", node.ingest.waiting_bytes)
        numbers.set("connections", runner.connections)
        numbers.set("connections_refused_total", runner.counters.refused)
        numbers.set("slow_connections_total", runner.counters.swept)
        numbers.set("event_loop_lag_seconds", node.health.lag_s)
        numbers.set("ready", not node.health.reasons())
        await asyncio.sleep(1)


async def _gauge(node: Node, client: Redis | Cluster) -> None:
    while True:
        with suppress(StoreUnavailable):
            found = await redis_contract.gauges(client)
            node.metrics.set("store_memory_bytes", found["memory_bytes"])
            node.metrics.set("store_delayed_fsync_total", found["aof_delayed_fsync"])
        await asyncio.sleep(GAUGES_S)


def _words(command: Callable[[int, int], list[str]], port: int, number: int) -> list[str]:
    return command(number, port)


def _listen(where: Listen, port: int | None, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((where.host, where.port if port is None else port))
    except OSError:
        listener.close()
        raise
    return listener


def _lock(stack: AsyncExitStack, state_dir: Path) -> None:
    """One first process per state directory; a killed one holds nothing."""
    lock = stack.enter_context((state_dir / _LOCK).open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"{state_dir}: another collector runs on it") from None


def _background(stack: AsyncExitStack, coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(coroutine)
    task.add_done_callback(_report)

    stack.push_async_callback(end, task)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.event("internal", error=error)


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
