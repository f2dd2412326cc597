"""The demo page of `dandelion up --demo`: its files on a listener of their own.

The page has another origin than the collector, as every page that uses the SDK has, and the public
listener of a collector stays what it is: no file, no script and no cookie is ever served there.
What the page pins comes with the page.

The files are what `make demo-browser` builds. They are read once, at the start: no request names a
path.

Leaves out: rounds and people (`demo_rounds`).
"""

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from client_py.config import ClientConfig
from dandelion.cli.demo_rounds import EPSILON, EPSILON_PERIOD, DemoRounds, registry
from dandelion.cli.output import Fault

_HOST: Final = "127.0.0.1"
_BUILT: Final = Path(__file__).resolve().parents[2] / "wasm_stub" / "build" / "demo"
_INDEX: Final = "index.html"
# Seconds between two looks at the processes of the deployment.
_LOOK_S: Final = 0.5
_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class DemoPage:
    """The page's files, and the listener that will serve them."""

    files: Mapping[str, bytes]
    listener: socket.socket

    @classmethod
    def open(cls, port: int, folder: Path | None = None) -> "DemoPage":
        """Reads the files and takes the port; 0 is a free one.

        Raises:
            Fault: the page is not built, or the port is taken.
        """
        folder = folder or _BUILT
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        if _INDEX not in found:
            raise Fault(f"no demo page in {folder}: `make demo-browser` builds it")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            # Who comes before everything has started waits for it.
            listener.listen()
        except OSError as error:
            listener.close()
            raise Fault(f"port {port} on {_HOST}: {error.strerror}") from None
        return cls(found, listener)

    @property
    def origin(self) -> str:
        """Where the page is."""
        return f"http://{_HOST}:{self.listener.getsockname()[1]}"

    async def serve(
        self, rounds: DemoRounds, config: ClientConfig, failed: Callable[[], str | None]
    ) -> None:
        """Serves the page and runs its rounds until SIGINT or SIGTERM.

        Args:
            rounds: what the page looks at.
            config: what the page pins.
            failed: names a party of the deployment that has ended by itself.

        Raises:
            Fault: there is one.
        """
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # Requests are few and short; nobody is waited for.
        runner = web.AppRunner(self._app(rounds, config), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.SockSite(runner, self.listener).start()
            async with asyncio.TaskGroup() as group:
                running = group.create_task(rounds.run())
                while not stop.is_set():
                    if reason := failed():
                        raise Fault(reason)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _LOOK_S)
                running.cancel()
        except* Fault as faults:
            raise faults.exceptions[0] from None
        finally:
            await runner.cleanup()

    def _app(self, rounds: DemoRounds, config: ClientConfig) -> web.Application:
        headers = _HEADERS | {"Content-Security-Policy": policy(config.pinned.endpoint)}
        settings = json.dumps(page_config(config)).encode()

        async def file(request: web.Request) -> web.Response:
            name = request.match_info["name"] or _INDEX
            body = self.files.get(name)
            if body is None:
                return web.Response(status=404, text="no such page\n", headers=headers)
            media = _TYPES[Path(name).suffix]
            return web.Response(body=body, content_type=media, charset="utf-8", headers=headers)

        async def configuration(_request: web.Request) -> web.Response:
            return web.Response(body=settings, content_type="application/json", headers=headers)

        async def now(_request: web.Request) -> web.Response:
            return web.json_response(rounds.look(), headers=headers | {"Cache-Control": "no-store"})

        app = web.Application()
        app.router.add_get("/config.json", configuration)
        app.router.add_get("/now.json", now)
        app.router.add_get("/{name:.*}", file)
        return app


def policy(endpoint: str) -> str:
    """The Content-Security-Policy of the page: its own files and one collector, nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self' {endpoint}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def page_config(config: ClientConfig) -> dict[str, object]:
    """What the page gives to `init`: whom it trusts, how far it goes, what may be recorded."""
    return {
        "endpoint": config.pinned.endpoint,
        "config": {
            "collector": config.pinned.collector.hex(),
            "helpers": [identity.hex() for identity in config.pinned.helpers],
        },
        "policy": {
            "cohortMin": config.policy.cohort_min,
            "epsilonRound": EPSILON,
            "epsilonPeriod": EPSILON_PERIOD,
        },
        "registry": registry(),
    }
