"""A collector of a few lines on a real socket: it takes reports, or behaves as it is told."""

import base64
import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.test_utils import TestServer

from dandelion.descriptor import Envelope
from dandelion.errors import RuleError, problem
from dandelion.messages import Report

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeCollector:
    """Lists `envelopes`, takes each report once. `behave` replaces the answer to a report."""

    def __init__(self, *envelopes: bytes) -> None:
        self.envelopes = list(envelopes)
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.window = "1800000010 1800000020"
        self.behave: Handler | None = None
        self.list_rounds: Handler | None = None
        app = web.Application()
        app.router.add_get("/v1/rounds", self._rounds)
        app.router.add_post("/v1/rounds/{round}/reports", self._report)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        self.server = TestServer(app)
        self.elsewhere = 0

    @property
    def endpoint(self) -> str:
        """Its origin."""
        return f"http://{self.server.host}:{self.server.port}"

    async def __aenter__(self) -> "FakeCollector":
        await self.server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()

    async def _rounds(self, request: web.Request) -> web.StreamResponse:
        if self.list_rounds is not None:
            return await self.list_rounds(request)
        listed = [
            {
                "round": Envelope.decode(each).descriptor.round_id.hex(),
                "envelope": base64.b64encode(each).decode(),
            }
            for each in self.envelopes
        ]
        return web.json_response(
            {"now": 0, "rounds": listed}, headers={"Dandelion-Window": self.window}
        )

    async def _report(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.headers.append(dict(request.headers))
        if self.behave is not None:
            self.bodies.append(body)
            return await self.behave(request)
        for each in self.envelopes:
            descriptor = Envelope.decode(each).descriptor
            if descriptor.round_id.hex() == request.match_info["round"]:
                Report.decode(body, descriptor.round_id, descriptor.report_bytes)
                repeated = body in self.bodies
                self.bodies.append(body)
                result = "duplicate" if repeated else "accepted"
                return web.json_response({"result": result}, status=200 if repeated else 201)
        return refusal("unknown_round")

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.json_response({"result": "accepted"}, status=201)


def refusal(token: str, **headers: str) -> web.Response:
    """A problem document."""
    error = RuleError(token)
    return web.Response(
        body=json.dumps(problem(error)).encode(),
        status=error.status,
        content_type="application/problem+json",
        headers=headers,
    )
