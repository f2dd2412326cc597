"""Wiring: one state directory, one thread for what is durable, one application.

`run` is the process: it serves until SIGTERM or SIGINT, then takes no more asks, finishes those in
flight within `drain_s`, and stops. Being killed at any moment instead is safe (`signing`,
`answers`, `keeper` say why).
"""

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from dandelion.encoding import identity_of
from dandelion.service import http_guard
from dandelion.service.http_guard import BACKLOG
from dandelion.service.identity import StateError, read_seed
from dandelion.service.logs import to_stderr
from dandelion.service.problems import say_little
from helper import logs
from helper.answers import Answers
from helper.config import Config, load_config
from helper.handlers import ANSWERS, CLOCK, IDENTITY, LIMITS, SIGNER, STATE, HttpLimits, routes
from helper.keeper import Keeper
from helper.problems import authorised, fault, problems
from helper.roots import Roots
from helper.signing import Signer
from helper.store import StateThread, Store

DATABASE: Final = "helper.sqlite3"
ROOTS: Final = "roots"
_LOCK: Final = "lock"

Clock = Callable[[], float]


def make_app(
    config: Config, *, clock: Clock = time.time, steady: Clock = time.monotonic
) -> web.Application:
    """The application over a state directory that `identity.init_state` has made.

    Args:
        config: what the helper is told.
        clock: Unix seconds; decides every rule about time.
        steady: seconds that never jump; decides when an answer becomes visible.

    Raises:
        StateError: at start-up, if the state directory cannot be used.
    """
    app = web.Application(middlewares=[problems, authorised(config.token_hashes())])
    app.add_routes(routes)
    app.on_response_prepare.append(say_little)
    app[CLOCK] = clock
    app[LIMITS] = HttpLimits(config.connections_max)

    async def state(app: web.Application) -> AsyncIterator[None]:
        seed = read_seed(config.state_dir)
        lock = _lock(config.state_dir)
        thread = StateThread()
        try:
            async with _opened(app, config, seed, thread, clock, steady):
                yield
        finally:
            thread.close()
            os.close(lock)

    app.cleanup_ctx.append(state)
    return app


@asynccontextmanager
async def _opened(
    app: web.Application,
    config: Config,
    seed: bytes,
    thread: StateThread,
    clock: Clock,
    steady: Clock,
) -> AsyncIterator[None]:
    identity = identity_of(seed)
    store = await thread.run(Store, config.state_dir / DATABASE, identity)
    sweeper = None
    try:
        roots = await thread.run(Roots, config.state_dir / ROOTS)
        keeper = Keeper(config, store, roots)
        # Recovery is done before the first request can be.
        await thread.run(keeper.sweep, int(clock()))
        app[IDENTITY] = identity
        app[STATE] = thread
        app[SIGNER] = Signer(config, seed, store, roots)
        app[ANSWERS] = Answers(config, seed, store, roots, thread, clock, steady)
        sweeper = asyncio.create_task(_sweep(keeper, thread, clock, config.sweep_s))
        yield
        await app[ANSWERS].drain(0)
    finally:
        if sweeper is not None:
            sweeper.cancel()
            await asyncio.wait([sweeper])
        await thread.run(store.close)


async def _sweep(keeper: Keeper, thread: StateThread, clock: Clock, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        # A helper that no longer erases is worse than one that failed once: whatever happens is
        # logged, and the next round tries again.
        sweep = asyncio.create_task(thread.run(keeper.sweep, int(clock())))
        await asyncio.wait([sweep])
        error = sweep.exception()
        if error is not None:
            logs.event("internal", error=error)


def _lock(state_dir: Path) -> int:
    """Holds the state directory for this process alone; a killed process holds nothing."""
    descriptor = os.open(state_dir / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateError(f"{state_dir}: another helper runs on it") from None
    return descriptor


class Runner(http_guard.Runner):
    """The guarded runner with this service's limits and log."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, app[LIMITS], fault)


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then drains.

    Raises:
        StateError: the state directory cannot be used.
        OSError: the address cannot be listened on.
    """
    app = make_app(config)
    runner = Runner(app)
    await runner.setup()
    try:
        address = config.address
        site: web.BaseSite
        if isinstance(address, Path):
            site = web.UnixSite(runner, str(address), backlog=BACKLOG)
        else:
            site = web.TCPSite(runner, *address, backlog=BACKLOG)
        await site.start()
        logs.event("listening", address=str(runner.addresses[0]))
        await stop.wait()
        logs.event("stopping")
        await app[ANSWERS].drain(config.drain_s)
    finally:
        await runner.cleanup()
    logs.event("stopped")


async def _main(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


def run(config_path: Path) -> None:
    """Runs the helper that a TOML file describes until it is told to stop.

    Raises:
        ConfigError: the file cannot be used.
        StateError: the state directory cannot be used; `identity.init_state` makes one.
        OSError: the address cannot be listened on.
    """
    config = load_config(config_path)
    to_stderr()
    uvloop.run(_main(config))
