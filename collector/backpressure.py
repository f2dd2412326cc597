"""Connections that were told to come again are left unread until there is room, or in their turn.

Turning a report away costs two thirds of taking it, most of it in the kernel: whoever answers each
excess request at four times the capacity does nothing else. What is not read waits with its sender
and costs nothing. A client that keeps to `Retry-After` notices nothing of it.

Leaves out: what counts as too much (`ingest`), and connections that are new or bring their report
in parts: each of those is answered.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from dandelion.service.http_guard import Connection

TICK_S: Final = 0.02
# So many are read again each second although there is no room, to be told so once more.
TURNS_PER_S: Final = 1_000


class Held:
    """The connections of one process that are not read. `room` gives how many more it can take."""

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._held: deque[Connection] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, connection: Connection) -> None:
        """Reads nothing more from a connection for now."""
        if connection.transport is None or connection.transport.is_closing():
            return
        connection.transport.pause_reading()
        self._held.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._release)

    def _release(self) -> None:
        """Reads from as many as there is room for, and from those whose turn it is."""
        count = max(0, self._room()) + int(TURNS_PER_S * TICK_S)
        while count > 0 and self._held:
            transport = self._held.popleft().transport
            # Those that have gone take up nobody's turn, or there would be more of them for ever.
            if transport is not None and not transport.is_closing():
                transport.resume_reading()
                count -= 1
        self._timer = None
        if self._held:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._release)
