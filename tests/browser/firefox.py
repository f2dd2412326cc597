"""Debian's Firefox, driven by WebDriver BiDi: as much of it as opens, leaves and closes pages."""

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

PATIENCE_S: Final = 60.0
# Whatever the browser itself wants of the world goes to a proxy that is not there; loopback
# addresses need none.
_PREFERENCES: Final[dict[str, Any]] = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "remote.active-protocols": 1,
}


def firefox_binary() -> Path:
    """The browser, which `make leave ARGS=--firefox` installs."""
    for name in ("firefox-esr", "firefox"):
        if found := shutil.which(name):
            return Path(found)
    raise RuntimeError("Firefox is needed: apt-get install firefox-esr")


class Firefox:
    """A session with a running browser. `version` is the browser's own word."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())
        self.version = ""

    async def command(self, method: str, **params: Any) -> Any:
        """The result of one command.

        Raises:
            RuntimeError: the browser refuses it.
        """
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(answer, PATIENCE_S)

    async def tab(self) -> "FirefoxTab":
        """A new tab."""
        made = await self.command("browsingContext.create", type="tab")
        return FirefoxTab(self, made["context"])

    async def end(self) -> None:
        """Ends the session."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            found = json.loads(message.data)
            answer = self._waiting.pop(found.get("id"), None)
            if answer is None:
                continue
            if found["type"] == "success":
                answer.set_result(found["result"])
            else:
                answer.set_exception(RuntimeError(f"{found['error']}: {found['message']}"))


class FirefoxTab:
    """One tab."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    async def goto(self, url: str) -> None:
        """Leaves the page for another one; returns when that is loaded."""
        await self._firefox.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def run(self, function: str, argument: object) -> None:
        """Calls a function of the page and waits for its promise."""
        found = await self._firefox.command(
            "script.evaluate",
            expression=f"({function})({json.dumps(argument)}).then(() => null)",
            target={"context": self._context},
            awaitPromise=True,
        )
        if found["type"] != "success":
            raise RuntimeError(found["exceptionDetails"]["text"])

    async def close(self) -> None:
        """Closes the tab."""
        await self._firefox.command("browsingContext.close", context=self._context)


@asynccontextmanager
async def firefox() -> AsyncIterator[Firefox]:
    """A running browser with an empty profile, ended and forgotten."""
    with TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as folder:
        _write_profile(Path(folder))
        process = await asyncio.create_subprocess_exec(
            *(firefox_binary(), "--headless", "--no-remote", "--profile", folder),
            *("--remote-debugging-port", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        # It must be able to go on complaining, or it stops at a full pipe.
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        reader = asyncio.create_task(_read(process.stderr, listening))
        try:
            address = await asyncio.wait_for(listening, PATIENCE_S)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{address}/session", max_msg_size=0) as socket,
            ):
                running = Firefox(socket)
                made = await running.command("session.new", capabilities={})
                running.version = made["capabilities"]["browserVersion"]
                yield running
                await running.end()
        finally:
            process.terminate()
            await process.wait()
            await reader


async def _read(stream: asyncio.StreamReader, listening: asyncio.Future[str]) -> None:
    """Tells where it listens, and drops the rest of what it says."""
    while line := await stream.readline():
        found = re.search(rb"WebDriver BiDi listening on (ws://\S+)", line)
        if found and not listening.done():
            listening.set_result(found[1].decode())
    if not listening.done():
        listening.set_exception(RuntimeError("Firefox has ended by itself"))


def _write_profile(folder: Path) -> None:
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items())
    (folder / "user.js").write_text("\n".join(lines))
