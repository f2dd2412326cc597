"""Collectors that a page talks to: one that does as it is told, and a witness before a real one.

Both note every request as it arrives, so that a test can say what a page has sent.
"""

import re
import time
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from aiohttp import web

from dandelion.descriptor import Descriptor
from tests.client.builders import Deployment
from tests.client.fake_collector import FakeCollector

_EXPOSED: Final = "Dandelion-Window, Retry-After"
_REPORTS: Final = re.compile(r"/v1/rounds/([0-9a-f]{32})/reports")
DEPLOYMENT: Final = Deployment()
POLICY: Final = {"cohortMin": 20, "epsilonRound": 5, "epsilonPeriod": 30}


@dataclass(frozen=True)
class Seen:
    """One request, and the status it was answered with."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def origin(self) -> str:
        """The page it came from; empty if it does not say."""
        return self.headers.get("Origin", "")


def reports(seen: list[Seen]) -> list[Seen]:
    """Those that bring a report, or would."""
    return [each for each in seen if each.method == "POST" or _REPORTS.fullmatch(each.path)]


class HostileCollector(FakeCollector):
    """Every page may call it. It lists `envelopes` and takes reports unless told otherwise."""

    def __init__(self, *envelopes: bytes) -> None:
        super().__init__(*envelopes)
        self.window = f"{int(time.time()) + 600} {int(time.time()) + 1_200}"
        self.seen: list[Seen] = []
        self.server.app.on_response_prepare.append(self._cross_origin)
        self.server.app.middlewares.append(self._note)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def _cross_origin(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Headers"] = "*"
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    @web.middleware
    async def _note(self, request: web.Request, handler: object) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.headers), body, 0))
        assert callable(handler)
        answer = await handler(request)
        assert isinstance(answer, web.StreamResponse)
        return answer


class Witness:
    """A proxy in front of a real collector. It changes nothing and keeps what it saw."""

    def __init__(self, collector: str) -> None:
        self._collector = collector
        self.seen: list[Seen] = []
        app = web.Application(client_max_size=2**20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app)
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        self.endpoint = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k not in ("Host", "Connection")}
        async with self._session.request(
            request.method, self._collector + request.path, data=body or None, headers=headers
        ) as answer:
            content = await answer.read()
        kept = {
            k: v
            for k, v in answer.headers.items()
            if k not in ("Content-Length", "Connection", "Transfer-Encoding")
        }
        self.seen.append(
            Seen(request.method, request.path, dict(request.headers), body, answer.status)
        )
        return web.Response(body=content, status=answer.status, headers=kept)


def acknowledged(seen: list[Seen], round_id: str) -> set[str]:
    """Origins of the pages whose report for the round was taken."""
    path = f"/v1/rounds/{round_id}/reports"
    return {each.origin for each in seen if each.path == path and each.status in (200, 201)}


def open_now(**changes: object) -> Descriptor:
    """A round of the default deployment that is open now."""
    now = int(time.time())
    times: dict[str, object] = {"opens": now - 60, "closes": now + 3_600, "expires": now + 7_200}
    return DEPLOYMENT.descriptor(**(times | changes))  # type: ignore[arg-type]


def options(endpoint: str, **more: object) -> dict[str, object]:
    """Options of `init` for a page of the default deployment."""
    config = DEPLOYMENT.config()
    pins = {
        "collector": config.collector.hex(),
        "helpers": [each.hex() for each in config.helpers],
    }
    return {"endpoint": endpoint, "config": pins, "consent": "granted", **more}
