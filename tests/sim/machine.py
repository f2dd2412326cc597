"""What the product finds around it in a simulation: clocks, randomness, disks, locks, threads.

`install` puts these in the place of the interpreter's own, for good: it belongs into a process that
ends with the seed. Files and SQLite are real, in a folder in memory; what is simulated is that a
process dies between two steps of a disk, that a disk is full, and that a lock is freed with the
process that held it.

Leaves out: loss of power. What was written stays written, so `fsync` is only a place to die.
"""

import errno
import fcntl
import logging
import os
import random
import secrets
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import aiohttp.client
import aiohttp.connector
from aiohttp import BaseConnector

import collector.database
import collector.node
import helper.store
import helper.workers
from tests.sim.loop import PROCESS, Killed, Process, SimExecutor, SimLoop
from tests.sim.net import Socket

EPOCH: Final = 1_800_000_000.0
_CONNECT: Final = sqlite3.connect
_FREE: Final = 1 << 40


@dataclass
class Host:
    """A machine: its clock, its disk, and the incarnation of its program that runs on it."""

    name: str
    ahead_s: float = 0.0
    disk_full: bool = False
    # The program dies at the so-manyth step of its disk from now; 0 is never.
    dies_at_disk: int = 0
    # Whether that was planned for this run, and is not one of the faults that end with the others.
    planted: bool = False
    disk_steps: int = 0
    boots: int = 0
    process: Process | None = None

    @property
    def up(self) -> bool:
        """Whether a process runs."""
        return self.process is not None and self.process.alive


@dataclass
class Machines:
    """All hosts, and what happened on them."""

    loop: SimLoop
    rng: random.Random
    hosts: dict[str, Host] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    # (host, event, fields) of every line that the product logged.
    lines: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    on_event: Callable[[str, str], None] = lambda host, event: None

    def host(self, name: str) -> Host:
        """The host of this name."""
        return self.hosts.setdefault(name, Host(name))

    def time(self) -> float:
        """Unix seconds by the clock of the host whose step runs."""
        host = self.hosts.get(PROCESS.get().host)
        return EPOCH + self.loop.now + (host.ahead_s if host is not None else 0.0)

    def disk_step(self, what: str) -> None:
        """A step of a disk begins or has ended: a process may die here, if it waits for it.

        Raises:
            Killed: it does.
        """
        process = self.loop.blocking
        if process is None:
            return
        host = self.host(process.host)
        host.disk_steps += 1
        if host.dies_at_disk:
            host.dies_at_disk -= 1
            if not host.dies_at_disk:
                self.seen[f"died_at_{what}"] += 1
                self.seen[f"died_{host.name[0]}_{what}"] += 1
                raise Killed

    def full(self) -> bool:
        """Whether the disk of the host whose step runs is full."""
        host = self.hosts.get(PROCESS.get().host)
        if host is None or not host.disk_full:
            return False
        self.seen["disk_full"] += 1
        return True


def install(machines: Machines) -> None:
    """Takes the place of the interpreter's own clocks, randomness, disk calls and threads."""
    loop, rng = machines.loop, machines.rng
    _put(time, time=machines.time, monotonic=loop.time)
    _put(aiohttp.connector, monotonic=loop.time)
    _put(os, urandom=rng.randbytes, getpid=lambda: 1_000 + len(machines.hosts))
    _put(random, _urandom=rng.randbytes)
    _put(secrets, token_bytes=rng.randbytes)
    random.seed(rng.getrandbits(64))
    _put(collector.database, ThreadPoolExecutor=SimExecutor)
    _put(helper.store, ThreadPoolExecutor=SimExecutor)
    _put(helper.workers, threading=SimpleNamespace(Thread=_thread(loop)))
    _put(collector.node, _listen=_listen)
    _put(aiohttp.client, TCPConnector=Connector)
    _put(os, fsync=_fsync(machines))
    _put(sqlite3, connect=_sqlite(machines))
    _put(fcntl, flock=_Locks(machines).flock)
    _put(shutil, disk_usage=_usage(machines))
    _log_to(machines)


def _put(module: Any, **attributes: object) -> None:
    for name, value in attributes.items():
        setattr(module, name, value)


def _listen(where: Any, port: int | None, *, shared: bool) -> Socket:
    del shared
    return Socket((where.host, where.port if port is None else port))


def _thread(loop: SimLoop) -> type:
    class Thread(threading.Thread):
        """Runs its target in line, as a call of its own."""

        def __init__(self, *, target: Callable[[], None], **_: object) -> None:
            super().__init__()
            self._run = target

        def start(self) -> None:
            loop.run_in_executor(None, self._run)

    return Thread


class Connector(BaseConnector):
    """Connections of aiohttp's client over the simulated network."""

    def __init__(self, **_: object) -> None:
        super().__init__()

    async def _create_connection(self, req: Any, *_: Any) -> Any:
        try:
            made: Any = await self._loop.create_connection(
                self._factory, req.url.raw_host, req.url.port
            )
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return made[1]


def _fsync(machines: Machines) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        del descriptor
        machines.disk_step("fsync")
        if machines.full():
            raise OSError(errno.ENOSPC, "No space left on device")
        machines.disk_step("fsync_done")

    return fsync


def _sqlite(machines: Machines) -> Callable[..., sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        """Where a writer may die, or find the disk full: at a statement, or at its commit."""

        wrote = False

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and self.wrote:
                self.wrote = False
                machines.disk_step("commit")
                if machines.full():
                    super().execute("ROLLBACK")
                    raise sqlite3.OperationalError("database or disk is full")
                cursor = super().execute(sql)
                machines.disk_step("commit_done")
                return cursor
            if sql.startswith(("INSERT", "UPDATE", "DELETE")):
                if machines.rng.random() < 0.5 and machines.full():
                    raise sqlite3.OperationalError("database or disk is full")
                self.wrote = True
            return super().execute(sql, *args)

    def opened(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        return _CONNECT(*args, factory=Connection, **kwargs)

    return opened


class _Locks:
    """`flock`, by process: what a dead process held is free, although its file is still open."""

    def __init__(self, machines: Machines) -> None:
        self._held: dict[int, tuple[Process, Any]] = {}
        self._machines = machines

    def flock(self, file: Any, flags: int) -> None:
        """Takes a lock, or raises `BlockingIOError`."""
        del flags
        descriptor = file if isinstance(file, int) else file.fileno()
        place = os.fstat(descriptor).st_ino
        holder, held = self._held.get(place, (None, None))
        if holder is not None and holder.alive and held is not file and not _closed(held, place):
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._held[place] = (PROCESS.get(), file)


def _closed(file: Any, place: int) -> bool:
    if not isinstance(file, int):
        return bool(file.closed)
    try:
        return os.fstat(file).st_ino != place
    except OSError:
        return True


def _usage(machines: Machines) -> Callable[[Any], Any]:
    def usage(path: Any) -> Any:
        del path
        host = machines.hosts.get(PROCESS.get().host)
        free = 0 if host is not None and host.disk_full else _FREE
        return SimpleNamespace(total=_FREE, used=_FREE - free, free=free)

    return usage


def _log_to(machines: Machines) -> None:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = getattr(record, "dandelion_fields", None)
            if fields is None:
                text = record.getMessage()
                if record.exc_info and record.exc_info[1] is not None:
                    text += f": {record.exc_info[1]!r}"
                machines.loop.faults.append(f"{PROCESS.get().name}: {record.name}: {text}")
                return
            host = PROCESS.get().host
            machines.lines.append((host, record.getMessage(), fields))
            machines.loop.note(f"log {record.getMessage()}")
            machines.on_event(host, record.getMessage())

    logging.basicConfig(level=logging.INFO, handlers=[Lines()], force=True)
