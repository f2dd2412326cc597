"""Seeds, each in a process of its own.

Such a process ends without any destructor having run: what was killed stays dead, and no seed knows
of another. A worker warms up with a seed without faults, then forks once for each seed.
"""

import atexit
import functools
import gc
import os
import pickle
import selectors
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dandelion.descriptor import Descriptor, Envelope
from dandelion.privacy import accounting
from tests.sim.checks import vectors
from tests.sim.profile import Profile
from tests.sim.scenario import Outcome, Prepare, simulate
from tests.sim.template import Template, make_template
from tests.sim.world import World

WALL_S: Final = 120

Mutation = Callable[[], AbstractContextManager[None]]

_TEMPLATE: list[Template] = []


def run_many(
    seeds: Iterable[int],
    *,
    profile: Callable[[int], Profile] = Profile.draw,
    mutate: Mutation | None = None,
    prepare: Prepare | None = None,
    trace: bool = False,
    entropy: int | None = None,
    jobs: int = 2,
) -> Iterator[Outcome]:
    """Runs seeds in worker processes and yields their outcomes as they come.

    Args:
        seeds: each decides everything, together with its profile.
        profile: gives the profile of a seed.
        mutate: makes a context in which the product is broken on purpose.
        prepare: is given seed and world before anything runs, for example to plan a crash.
        trace: whether outcomes carry the whole trace.
        entropy: if given, chance is the same for all seeds, which are then mere numbers.
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
            plan = _Plan(profile, mutate, prepare, trace, entropy)
            _worker(writing, todo[job::jobs], plan)
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


@dataclass(frozen=True)
class _Plan:
    """The arguments of `run_many` that every seed needs."""

    profile: Callable[[int], Profile]
    mutate: Mutation | None
    prepare: Prepare | None
    trace: bool
    entropy: int | None


def _worker(writing: int, seeds: list[int], plan: _Plan) -> None:
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
                _child(writing, seed, plan, folder)
            _, code = os.waitpid(child, 0)
            shutil.rmtree(folder, ignore_errors=True)
            if code:
                _send(writing, Outcome(seed, [f"sim: the process ended with status {code}"]))
        status = 0
    except BaseException:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    finally:
        os._exit(status)


def warm_up() -> None:
    """Runs a seed without faults here, so that forks find everything imported and compiled."""
    # Pure and slow: a search for the least epsilon, and signatures of what every party reads.
    accounting.epsilon = functools.lru_cache(maxsize=None)(accounting.epsilon)
    kinds: tuple[Any, ...] = (Descriptor, Envelope)
    for kind in kinds:
        kind.decode = _remembered(kind.decode)
    folder = Path(tempfile.mkdtemp(prefix="sim-", dir=_memory()))
    try:
        the_template().copy_to(folder)
        for plan in the_template().plans:
            vectors(plan)
        simulate(0, Profile(), the_template(), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remembered(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    cached = functools.lru_cache(maxsize=None)(decode)
    return lambda data: cached(bytes(data))


def the_template() -> Template:
    """State directories to copy; made once in each process."""
    if not _TEMPLATE:
        folder = Path(tempfile.mkdtemp(prefix="sim-template-", dir=_memory()))
        _TEMPLATE.append(make_template(folder))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _TEMPLATE[0]


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _child(writing: int, seed: int, plan: _Plan, folder: Path) -> None:
    """One seed. Never returns."""
    status = 1
    try:
        signal.alarm(WALL_S)
        the_template().copy_to(folder)
        with (plan.mutate or nullcontext)():
            outcome = simulate(
                seed,
                plan.profile(seed),
                the_template(),
                folder,
                plan.prepare,
                trace=plan.trace,
                entropy=plan.entropy,
            )
        _send(writing, outcome)
        status = 0
    except BaseException:  # noqa: BLE001 - shown, and the process ends
        traceback.print_exc()
    finally:
        os._exit(status)
