"""The faults, each as a coroutine that injects until it is cancelled.

Every one draws from the run's own generator, counts what it did in `injected`, and leaves nothing
behind that `Run.heal` would not end.
"""

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.faults.campaign import Run
from tests.faults.deployment import HELPERS
from tests.faults.proxies import Fault

_MOMENTS: Final = ("commit", "epoch", "step", "seal", "sign", "ask", "answer")
_HOUR_S: Final = 3_600.0
_JUMPS_S: Final = (_HOUR_S, -_HOUR_S, 24 * _HOUR_S, -24 * _HOUR_S, -5.0, 61.0)
DRAIN_MAX_S: Final = 30.0


async def kills(run: Run) -> None:
    """kill -9 of a random process, half of the time just when something decisive is under way."""
    victims = ("store", "store", "collector", "worker", "worker", *HELPERS, "everything")
    while True:
        await asyncio.sleep(run.rng.uniform(0.3, 2.5))
        if run.rng.random() < 0.6:
            moment = run.rng.choice(_MOMENTS)
            with suppress(TimeoutError):
                await asyncio.wait_for(run.it.moments.next(moment), 3)
            await asyncio.sleep(run.rng.choice((0, 0.002, 0.02)))
        kill(run, run.rng.choice(victims))


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
        Fault.DROP_REPLY: 0.06,
        Fault.DROP_REQUEST: 0.03,
        Fault.LATE: 0.03,
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


async def slow_disks(run: Run) -> None:
    """Syncs of one process take 20 ms to 2 s for a while."""
    while True:
        await asyncio.sleep(run.rng.uniform(0.2, 2))
        name = run.rng.choice(("store", "store", "collector", *HELPERS))
        run.it.controls[name].slow_syncs(run.rng.choice((0.02, 0.1, 0.5, 2.0)))
        run.injected[f"slow syncs of {name}"] += 1
        await asyncio.sleep(run.rng.uniform(0.5, 4))
        run.it.controls[name].slow_syncs(0)


async def kills_behind_slow_syncs(run: Run) -> None:
    """The store's disk hardly keeps up; just then the store is killed, or everything is.

    The collector lives on otherwise: what it remembers is what shows a loss. If both die within a
    second of an acknowledgement, no anchor tells of that one, and only the policy of the store
    protects it; with the wrong policy that is not this fault's to show.
    """
    while True:
        await asyncio.sleep(run.rng.uniform(1, 2))
        run.it.controls["store"].slow_syncs(run.rng.uniform(0.8, 1.5))
        await asyncio.sleep(run.rng.uniform(1, 2))
        victims = ["store"] if run.it.setup.lossy else ["store", "store", "store", "everything"]
        kill(run, run.rng.choice(victims))
        run.it.controls["store"].slow_syncs(0)


async def full_disks(run: Run) -> None:
    """The disk below one process is full for a while; its last write is cut short."""
    while True:
        await asyncio.sleep(run.rng.uniform(0.5, 3))
        name = run.rng.choice(("store", "collector", *HELPERS))
        control = run.it.controls[name]
        before = control.refused
        control.fill_disk(run.rng.choice((0, 100, 5_000, 50_000)))
        await asyncio.sleep(run.rng.uniform(0.3, 2.5))
        control.fill_disk(-1)
        if control.refused > before:
            run.injected[f"full disk of {name}"] += 1


async def pauses(run: Run) -> None:
    """SIGSTOP of one process, for up to 30 s if there is the time, while others work; SIGCONT."""
    while True:
        await asyncio.sleep(run.rng.uniform(0.3, 2))
        name = run.rng.choice((*run.it.collectors, *run.it.collectors, "store", *HELPERS))
        longest = 30.0 if name in run.it.collectors else 7.0
        service = run.it.services[name]
        if service.signal(signal.SIGSTOP):
            run.injected[f"SIGSTOP {name}"] += 1
            await asyncio.sleep(run.rng.choice((0.5, 2.0, 6.0, longest)))
            service.signal(signal.SIGCONT)


async def clocks(run: Run) -> None:
    """The wall clock of one machine jumps, forward or back, and is set right after a while."""
    while True:
        await asyncio.sleep(run.rng.uniform(0.3, 2))
        name = run.rng.choice(("store", "collector", "collector", *HELPERS))
        names = run.it.collectors if name == "collector" else [name]
        async with run.right_time:
            await jump(run, names, run.rng.choice(_JUMPS_S), run.rng.uniform(0.5, 4))


async def jump(run: Run, names: list[str], seconds: float, lasting_s: float) -> None:
    """Sets the clocks of these services ahead of the machine's, for a while."""
    for name in names:
        run.it.controls[name].shift_clock(seconds)
    run.injected[f"clock of {names[0]} {seconds:+.0f} s"] += 1
    await asyncio.sleep(lasting_s)
    for name in names:
        run.it.controls[name].shift_clock(0)


async def drains(run: Run) -> None:
    """SIGTERM under load, one collector process after the other, each back before the next."""
    while True:
        for name in run.it.collectors:
            await asyncio.sleep(run.rng.uniform(0.2, 1.5))
            await drain(run, name)


async def drain(run: Run, name: str) -> None:
    """SIGTERM to one service, which must end well and in time, and come back."""
    service, began = run.it.services[name], time.monotonic()
    status = await service.terminate()
    run.injected[f"SIGTERM {name}"] += 1
    if status != 0:
        run.faults.append(f"the {name} ended with {status} on SIGTERM")
    if time.monotonic() - began > DRAIN_MAX_S:
        run.faults.append(f"the {name} took more than {DRAIN_MAX_S:.0f} s to end")
    await service.until_ready()


async def restores(run: Run) -> None:
    """The store is replaced by a copy of some time ago, made while it was down."""
    while True:
        await asyncio.sleep(run.rng.uniform(3, 8))
        copy = await copied(run, "store")
        await asyncio.sleep(run.rng.uniform(0.5, 3))
        await restored(run, "store", copy)


async def copied(run: Run, name: str) -> Path:
    """Stops a service, copies its state, starts it again; where the copy is."""
    service, source = run.it.services[name], run.it.state(name)
    service.hold()
    await service.terminate()
    copy = run.it.folder / f"{name}.copy"
    shutil.rmtree(copy, ignore_errors=True)
    await asyncio.to_thread(shutil.copytree, source, copy, ignore=_no_sockets)
    await service.start()
    return copy


async def restored(run: Run, name: str, copy: Path, *files: str) -> None:
    """Stops a service, puts a copy back, all of it or these files, and starts it again."""
    service, target = run.it.services[name], run.it.state(name)
    service.hold()
    await service.terminate()
    if files:
        for file in files:
            shutil.copy2(copy / file, target / file)
    else:
        await asyncio.to_thread(shutil.rmtree, target)
        await asyncio.to_thread(shutil.copytree, copy, target)
    run.injected[f"{name} restored"] += 1
    await service.start()


def _no_sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_socket()}
