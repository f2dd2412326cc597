"""A proxy between collector and store that loses requests and replies on purpose.

"Executed, but the reply was lost" is the one fault that finds most mistakes in retries.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

DROP_REQUEST = "drop request"
DROP_REPLY = "drop reply"


class FaultyProxy:
    """Forwards one request at a time. `plan` is asked before each: None lets it through.

    A dropped request or reply closes the client's connection, as a broken network would.
    """

    def __init__(self, target: Path, plan: Callable[[], str | None]) -> None:
        self._target = target
        self._plan = plan
        self._folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    @property
    def url(self) -> str:
        """How a client names the proxy."""
        return f"unix://{self._folder.name}/s"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, f"{self._folder.name}/s")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(str(self._target))
        try:
            while request := await _read_value(reader):
                fault = self._plan()
                if fault == DROP_REQUEST:
                    self.dropped += 1
                    return
                upstream_writer.write(request)
                reply = await _read_value(upstream_reader)
                if fault == DROP_REPLY:
                    self.dropped += 1
                    return
                writer.write(reply)
                await writer.drain()
        finally:
            upstream_writer.close()


async def _read_value(reader: asyncio.StreamReader) -> bytes:
    """One value of the Redis protocol, version 2: a request or a reply. Empty at the end."""
    line = await reader.readline()
    if not line:
        return b""
    kind, rest = line[:1], line[1:].strip()
    if kind == b"$" and rest != b"-1":
        return line + await reader.readexactly(int(rest) + 2)
    if kind == b"*":
        parts = [await _read_value(reader) for _ in range(max(0, int(rest)))]
        return line + b"".join(parts)
    return line
