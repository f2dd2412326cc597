"""Ingest-only processes: started by the first one, restarted if they end, told to stop with it.

A worker hears that the first process is gone when its standard input ends, and stops too. On its
standard output it sends one JSON object of metrics after another, for the first process to show.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from collector import logs
from collector.metrics import Snapshot

RESTART_MIN_S: Final = 0.5
RESTART_MAX_S: Final = 10.0
# A line holds every number once; far above what that takes.
_LINE_MAX: Final = 1 << 20


class Supervisor:
    """Keeps `count` workers running; `command` gives the words that start worker number n."""

    def __init__(self, command: Callable[[int], Sequence[str]], count: int) -> None:
        self._command = command
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self.snapshots: dict[str, Snapshot] = {}
        self._tasks = [asyncio.create_task(self._keep(number)) for number in range(1, count + 1)]

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [process.pid for process in self._processes.values()]

    async def stop(self, seconds: float) -> None:
        """Tells all workers to stop; ends those that are still there after `seconds`."""
        self._stopping.set()
        for process in list(self._processes.values()):
            _signal(process, signal.SIGTERM)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for process in list(self._processes.values()):
                _signal(process, signal.SIGKILL)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        pause = RESTART_MIN_S
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            await self._run(number)
            if not self._stopping.is_set():
                logs.event("worker_ended", n=number)
            if loop.time() - started > RESTART_MAX_S:
                pause = RESTART_MIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, RESTART_MAX_S)

    async def _run(self, number: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(number),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_MAX,
        )
        self._processes[number] = process
        if self._stopping.is_set():
            _signal(process, signal.SIGTERM)
        logs.event("worker_started", n=number)
        try:
            output = process.stdout
            while output is not None and (line := await output.readline()):
                self.snapshots[str(number)] = json.loads(line)
            await process.wait()
        finally:
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
                await process.wait()
            del self._processes[number]


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
