"""Raw conversations with a listener, and the process that holds it.

An answer is read as strictly as any client might: status line, headers, exactly its length. What is
left over after the last whole answer is itself a fault.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.edge.server import Listening, decoded

ROOT = Path(__file__).resolve().parents[2]
# Far above every deadline of `server.SHORT`.
PATIENCE_S = 20.0
START_S = 60.0


@dataclass(frozen=True)
class Answer:
    """One answer of a listener."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def token(self) -> str:
        """The token of the problem document, or nothing."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(json.loads(self.body)["type"]).removeprefix("urn:dandelion:problem:")


def answers(data: bytes, *, bodiless: bool = False) -> list[Answer]:
    """All answers in what came back. `bodiless`: to HEAD, which gets no body.

    Raises:
        ValueError: something that is no answer.
    """
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        version, code, _ = status.split(" ", 2)
        if not end or version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(f"no answer: {data[:80]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        if len(headers) != len(lines):
            raise ValueError(f"a header twice: {lines}")
        size = 0 if bodiless or code == "100" else int(headers["content-length"])
        if len(rest) < size:
            raise ValueError(f"cut short: {data[:80]!r}")
        found.append(Answer(int(code), headers, rest[:size]))
        data = rest[size:]
    return found


async def talk(
    port: int,
    data: bytes,
    *,
    pieces: int = 1,
    hangs_up: bool = False,
    seconds: float = PATIENCE_S,
) -> bytes:
    """Sends bytes on a connection of their own, in so many packets; everything that comes back.

    Raises:
        TimeoutError: the listener neither answered nor closed.
    """
    back = b""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> None:
            step = -(-len(data) // pieces)
            with suppress(ConnectionError):
                for start in range(0, len(data), step or 1):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(0.002 if pieces > 1 else 0)
                if hangs_up:
                    writer.write_eof()

        sending = asyncio.create_task(send())
        try:
            # A listener that has seen enough may close while bytes are still on their way.
            with suppress(ConnectionError):
                while part := await reader.read(65_536):
                    back += part
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            writer.transport.abort()
    return back


@dataclass
class Listener:
    """A listener in a process of its own."""

    process: asyncio.subprocess.Process
    where: Listening

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.where.port

    async def state(self) -> dict[str, Any]:
        """What it says about itself."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"state\n")
        return await _line(self.process)

    async def good(self, body: bytes | None = None) -> Answer:
        """A good request on a fresh connection."""
        target = self.where.target
        size = f"Content-Length: {len(body or target.body)}"
        request = target.request(size, "Connection: close", body=body)
        [answer] = answers(await talk(self.port, request))
        return answer


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(START_S):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"the listener has ended: {await process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


@asynccontextmanager
async def listener(kind: str, *words: str, **limits: float) -> AsyncIterator[Listener]:
    """Starts `tests.edge.server`; `limits` are those of the HTTP guard."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.edge.server", kind, "--limits", json.dumps(limits), *words),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Listener(process, decoded(await _line(process)))
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()
