"""The faults, each as a coroutine that injects until it is cancelled."""

import asyncio
import os
import signal
from contextlib import suppress

from tests.faults.campaign import Run
from tests.faults.deployment import HELPERS
from tests.faults.proxies import Fault

_MOMENTS = ("commit", "epoch", "step", "seal", "sign", "ask", "answer")


async def kills(run: Run) -> None:
    """kill -9 of a random process, half of the time just when something decisive is under way."""
    while True:
        await asyncio.sleep(run.rng.uniform(0.3, 2.0))
        victim = run.rng.choice(["store", "collector", "worker", *HELPERS, "everything"])
        if run.rng.random() < 0.6:
            moment = run.rng.choice(_MOMENTS)
            with suppress(TimeoutError):
                await asyncio.wait_for(run.it.moments.next(moment), 3)
            await asyncio.sleep(run.rng.choice((0, 0.002, 0.02)))
        kill(run, victim)


def kill(run: Run, victim: str) -> None:
    """kill -9 of one service, of an ingest worker, or of everything at the same time."""
    services = run.it.services
    if victim == "worker":
        workers = [pid for name in run.it.collectors for pid in services[name].children()]
        for pid in workers[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                run.injected["kill -9 worker"] += 1
        return
    names = list(services) if victim == "everything" else [victim]
    for name in names:
        if services[name].kill():
            run.injected[f"kill -9 {name}"] += 1


async def network(run: Run) -> None:
    """Requests and replies between collector and store, and collector and helpers, get lost."""
    run.it.weather["store"].shares = {
        Fault.DROP_REPLY: 0.03,
        Fault.DROP_REQUEST: 0.02,
        Fault.LATE: 0.02,
        Fault.DELAY: 0.05,
    }
    for name in HELPERS:
        run.it.weather[name].shares = {
            Fault.DROP_REPLY: 0.1,
            Fault.DROP_REQUEST: 0.05,
            Fault.LATE: 0.05,
            Fault.DELAY: 0.1,
        }
    while True:
        # Now and then one of them cannot be reached at all for a while.
        await asyncio.sleep(run.rng.uniform(2, 6))
        weather = run.it.weather[run.rng.choice(("store", *HELPERS))]
        before, weather.shares = weather.shares, {Fault.CUT: 1.0}
        await asyncio.sleep(run.rng.uniform(0.2, 2.5))
        weather.shares = before
