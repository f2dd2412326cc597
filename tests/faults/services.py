"""Processes that are started again whenever they end, as a service manager would do it.

Everything started carries a mark in its environment, so that whatever is left over at the end is
found, children of killed parents included.
"""

import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 60.0
_MARK: Final = "FAULTS_RUN"


class NotReady(Exception):
    """A process does not come up, or does not stay up. The message ends with its log."""


class Marked:
    """The processes of one run."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process of this run."""
        return {**os.environ, _MARK: self._mark, **more}

    def left(self) -> list[int]:
        """Ids of those that still run."""
        wanted, found = f"{_MARK}={self._mark}".encode(), []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and int(folder.name) != os.getpid():
                with suppress(OSError):
                    marked = wanted in (folder / "environ").read_bytes().split(b"\0")
                    if marked and not _is_zombie(int(folder.name)):
                        found.append(int(folder.name))
        return found

    async def clear(self, seconds: float) -> list[str]:
        """Waits for stragglers; kills those that are left after `seconds`, and describes them."""
        deadline = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < deadline:  # noqa: ASYNC110 - others'
            await asyncio.sleep(0.05)
        described = [_describe(pid) for pid in left]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return described


class Service:
    """One process: kept running from `start` to `stop`, whatever happens to it in between."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
        *,
        pause_s: float = 0.1,
    ) -> None:
        """`ready` says whether it can be used; `pause_s` passes before it is started again."""
        self.name = name
        self.log = log
        self.pause_s = pause_s
        # Exit statuses that nobody here asked for.
        self.ends: Counter[int] = Counter()
        self._command = command
        self._environment = environment
        self._ready = ready
        self._process: asyncio.subprocess.Process | None = None
        self._expected = False
        self._held = asyncio.Event()
        self._held.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Starts it and waits until it is ready.

        Raises:
            NotReady: it is not, in time.
        """
        self._held.set()
        if self._task is None:
            self._task = asyncio.create_task(self._keep())
        await self.until_ready()

    async def until_ready(self, seconds: float = START_S) -> None:
        """Waits until it can be used.

        Raises:
            NotReady: it cannot, in time.
        """
        deadline = time.monotonic() + seconds
        while not (self.pid is not None and await self._ready()):
            if time.monotonic() > deadline or (self._task is not None and self._task.done()):
                raise NotReady(f"the {self.name} is not ready:\n{self.last_lines()}")
            await asyncio.sleep(0.05)

    def last_lines(self, count: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal; whether there was a process to send it to."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._expected |= number in (signal.SIGKILL, signal.SIGTERM)
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> bool:
        """kill -9; whether there was a process."""
        return self.signal(signal.SIGKILL)

    def children(self) -> list[int]:
        """Process ids of its children."""
        pid = self.pid
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            return []
        return [int(word) for word in text.split()]

    def hold(self) -> None:
        """Once it has ended it stays down, until `start`."""
        self._held.clear()

    async def down(self) -> None:
        """Kills it and keeps it down."""
        self.hold()
        self.kill()
        await self._ended()

    async def terminate(self, seconds: float = 40) -> int:
        """Tells it to stop and waits; the exit status. It is started again unless held.

        Raises:
            TimeoutError: it does not end.
        """
        process = self._process
        assert process is not None
        self.signal(signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), seconds)

    async def stop(self) -> int | None:
        """Ends it in good order and for good; the exit status, None if it did not run."""
        self.hold()
        status = None
        if self.pid is not None:
            self.signal(signal.SIGCONT)
            try:
                status = await self.terminate()
            except TimeoutError:
                self.kill()
        await self._ended()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        return status

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()

    async def _keep(self) -> None:
        while True:
            await self._held.wait()
            with self.log.open("ab") as log:
                self._expected = False
                process = self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    cwd=ROOT,
                    env=dict(self._environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            status = await process.wait()
            if not self._expected:
                self.ends[status] += 1
            await asyncio.sleep(self.pause_s)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _describe(pid: int) -> str:
    """What a process is, what it does, and what it has open; for a report of what was left."""
    folder, found = Path(f"/proc/{pid}"), [str(pid)]
    with suppress(OSError):
        found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        state = (folder / "stat").read_text().rpartition(")")[2].split()
        found.append(f"state {state[0]}, parent {state[1]}, {(folder / 'wchan').read_text()}")
        found += [f"{it.name} -> {it.readlink()}" for it in sorted((folder / "fd").iterdir())]
    return ", ".join(found)
