"""Whether this process should get traffic, and if not, why (docs/protocol.md section 10).

A process is ready while the store answers and still promises to keep what it confirms, its clock
agrees with the store's, the disk has room, the queue has room, and it is not stopping. Reasons are
words of a closed list; only the admin listener shows them.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from collector.store import StoreUnavailable

CHECK_S: Final = 2.0
CLOCK_DRIFT_MAX_S: Final = 2.0
DISK_FREE_MIN: Final = 268_435_456  # bytes
QUEUE_MAX: Final = 0.8

REASONS: Final = frozenset(
    {
        "starting",
        "draining",
        "store_unavailable",
        "store_lossy",
        "clock_differs",
        "disk_full",
        "queue_full",
        "event_loop_late",
    }
)


class Inspected(Protocol):
    """What the store is asked about itself."""

    async def clock(self) -> float:
        """Unix seconds by the store's clock. Raises `StoreUnavailable`."""

    async def faults(self) -> list[str]:
        """What makes the store lossy. Raises `StoreUnavailable`."""


class Health:
    """The reasons why this process is not ready, if any."""

    def __init__(
        self,
        store: Inspected | None,
        state_dir: Path,
        *,
        clock: Callable[[], float],
        queue: Callable[[], float],
        draining: Callable[[], bool],
        allow_lossy: bool = False,
    ) -> None:
        """`queue` is the filled share of the queue, 0 to 1; `store` None is not asked anything."""
        self._store = store
        self._state_dir = state_dir
        self._clock = clock
        self._queue = queue
        self._draining = draining
        self._allow_lossy = allow_lossy
        self._checked: set[str] = {"starting"}
        self.lag_s = 0.0

    def reasons(self) -> list[str]:
        """All reasons, sorted; none means ready."""
        found = set(self._checked)
        if self._draining():
            found.add("draining")
        if self._queue() > QUEUE_MAX:
            found.add("queue_full")
        return sorted(found)

    async def run(self) -> None:
        """Checks again and again until cancelled."""
        while True:
            await self.check()
            loop = asyncio.get_running_loop()
            due = loop.time() + CHECK_S
            await asyncio.sleep(CHECK_S)
            self.lag_s = max(0.0, loop.time() - due)

    async def check(self) -> None:
        """Checks now."""
        found = set()
        if self._store is not None:
            found |= await self._store_reasons(self._store)
        usage = await asyncio.to_thread(shutil.disk_usage, self._state_dir)
        if usage.free < DISK_FREE_MIN:
            found.add("disk_full")
        if self.lag_s > 1.0:
            found.add("event_loop_late")
        self._checked = found

    async def _store_reasons(self, store: Inspected) -> set[str]:
        found = set()
        try:
            before = self._clock()
            theirs = await store.clock()
            if not before - CLOCK_DRIFT_MAX_S < theirs < self._clock() + CLOCK_DRIFT_MAX_S:
                found.add("clock_differs")
            if not self._allow_lossy and await store.faults():
                found.add("store_lossy")
        except StoreUnavailable:
            found.add("store_unavailable")
        return found
