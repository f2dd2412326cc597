"""The public HTTP interface: decode, act, encode (docs/protocol.md section 10)."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import hdrs, web

from collector import registry
from collector.book import Round, RoundBook
from collector.committer import Outcome
from collector.config import Config
from collector.database import Database
from collector.health import Health
from collector.ingest import Ingest
from collector.metrics import Metrics
from collector.openapi import document
from collector.pace import Pace
from collector.problems import Handler
from collector.questions import public_view
from dandelion.errors import DandelionError, RuleError, WireError
from dandelion.params import (
    MEDIA_ENVELOPE,
    MEDIA_RELEASE,
    MEDIA_REPORT,
    MEDIA_REPORT_SAFELISTED,
    WINDOW_HEADER,
)
from dandelion.service.http_guard import body_length, expect_nothing_yet, read_body

ROUND_ID: Final = re.compile(r"[0-9a-f]{32}")
# How old a list may be that is read from the database for everybody, in seconds.
FRESH_S: Final = 1.0
# What is published never changes.
FOR_EVER: Final = "public, max-age=31536000, immutable"


class Fresh:
    """A JSON document that is read for everybody at once, at most every `FRESH_S`."""

    def __init__(self, read: Callable[[sqlite3.Connection], object]) -> None:
        self._read = read
        self._reading: asyncio.Task[bytes] | None = None
        self._until = 0.0

    async def get(self, database: Database) -> bytes:
        """The document, at most `FRESH_S` old when it was read."""
        now = asyncio.get_running_loop().time()
        if self._reading is None or (self._reading.done() and now >= self._until):
            self._until = now + FRESH_S
            self._reading = asyncio.create_task(self._load(database))
        return await asyncio.shield(self._reading)

    async def _load(self, database: Database) -> bytes:
        return json.dumps(await database.run(self._read)).encode()


def _all_queries(connection: sqlite3.Connection) -> object:
    return {"queries": [public_view(it) for it in registry.queries(connection)]}


def _all_ended(connection: sqlite3.Connection) -> object:
    return {"releases": registry.ended(connection)}


@dataclass
class Public:
    """What the public handlers need. `clock` gives Unix seconds."""

    config: Config
    book: RoundBook
    ingest: Ingest
    database: Database
    metrics: Metrics
    pace: Pace
    health: Health
    clock: Callable[[], float]
    queries: Fresh = field(default_factory=lambda: Fresh(_all_queries))
    releases: Fresh = field(default_factory=lambda: Fresh(_all_ended))


PUBLIC: Final = web.AppKey("public", Public)

_ACCEPTED: Final = json.dumps({"result": "accepted"}).encode()
_DUPLICATE: Final = json.dumps({"result": "duplicate"}).encode()
_REFUSED: Final = {
    Outcome.CONFLICT: "report_conflict",
    Outcome.CLOSED: "round_closed",
    Outcome.DAMAGED: "round_damaged",
    Outcome.UNAVAILABLE: "store_unavailable",
}
# What `reports_total` counts a refusal as; everything else is malformed.
_COUNTED: Final = {
    "report_conflict": "conflict",
    "round_closed": "closed",
    "round_damaged": "damaged",
    "store_unavailable": "unavailable",
    "overloaded": "overloaded",
    "draining": "draining",
    "not_open": "not_open",
    "unknown_round": "unknown_round",
    "request_timeout": "slow",
}


def public_routes() -> list[web.RouteDef]:
    """All public routes; each leaves `Expect` to `read_body`."""
    table_: list[tuple[str, str, Handler]] = [
        ("GET", "/v1/rounds", rounds),
        ("GET", "/v1/rounds/{round}", envelope),
        ("POST", "/v1/rounds/{round}/reports", report),
        ("GET", "/v1/queries", queries),
        ("GET", "/v1/releases", releases),
        ("GET", "/v1/releases/{round}", release),
        ("GET", "/v1/releases/{round}/table", table),
        ("GET", "/openapi.json", openapi),
        ("GET", "/livez", livez),
        ("GET", "/readyz", readyz),
    ]
    return [
        web.route(method, path, handler, expect_handler=expect_nothing_yet)
        for method, path, handler in table_
    ]


async def report(request: web.Request) -> web.Response:
    """Takes one report; answers when its fate is known and durable (sections 10.2, 10.4).

    `express` does the same for those that come whole.
    """
    public = request.app[PUBLIC]
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        round_ = await _round(request)
        size = body_length(request)
        if size != round_.report_bytes:
            raise WireError("bad_length")
        if request.content_type not in (MEDIA_REPORT, MEDIA_REPORT_SAFELISTED):
            raise WireError("media_type")
        if request.headers.get("Sec-Fetch-Mode") == "navigate":
            raise WireError("bad_request", "a report is not sent by following a link")
        with public.ingest.admitted(size) as seat:
            body = await read_body(request, size, public.config.limits)
            public.metrics.count("report_bytes_total", by=size)
            outcome = await public.ingest.accept(round_, body, seat)
        answer = report_answer(outcome, draining=public.ingest.draining)
    except DandelionError as error:
        count_refusal(public.metrics, error)
        raise
    except ConnectionError:
        public.metrics.count("reports_total", "gone")
        raise
    public.metrics.count("reports_total", outcome)
    public.metrics.observe("report_seconds", loop.time() - started)
    return answer


def report_answer(outcome: Outcome, *, draining: bool = False) -> web.Response:
    """The answer to a report whose fate is `outcome`.

    Raises:
        RuleError: it is not in; `draining` says why its fate may be unknown.
    """
    match outcome:
        case Outcome.ACCEPTED:
            return web.Response(status=201, body=_ACCEPTED, content_type="application/json")
        case Outcome.DUPLICATE:
            return web.Response(status=200, body=_DUPLICATE, content_type="application/json")
        case Outcome.UNAVAILABLE if draining:
            raise RuleError("draining")
        case _:
            raise RuleError(_REFUSED[outcome])


def count_refusal(metrics: Metrics, error: DandelionError | str) -> None:
    """Counts a report that is not in."""
    token = error if isinstance(error, str) else error.token
    metrics.count("reports_total", _COUNTED.get(token, "malformed"))


async def rounds(request: web.Request) -> web.Response:
    """Open rounds with their envelopes (section 10.1)."""
    public = request.app[PUBLIC]
    now = public.clock()
    found = [
        {
            "round": it.descriptor.round_id.hex(),
            "query": it.query,
            "opens": it.descriptor.opens,
            "closes": it.descriptor.closes,
            "envelope": it.envelope_base64,
        }
        for it in public.book
        if it.taking(now)
    ]
    return web.json_response({"now": int(now), "rounds": found})


async def envelope(request: web.Request) -> web.Response:
    """One round's envelope, whatever its phase."""
    found = await _round(request)
    return web.Response(body=found.envelope, content_type=MEDIA_ENVELOPE)


async def queries(request: web.Request) -> web.Response:
    """What is asked, in SQL and in words."""
    public = request.app[PUBLIC]
    return _json(await public.queries.get(public.database))


async def releases(request: web.Request) -> web.Response:
    """Ended rounds, newest first."""
    public = request.app[PUBLIC]
    return _json(await public.releases.get(public.database))


async def release(request: web.Request) -> web.Response:
    """The artefact, byte for byte the same for everybody and for ever."""
    found = await _stored(request, registry.artefact)
    headers = {hdrs.CACHE_CONTROL: FOR_EVER}
    return web.Response(body=found, content_type=MEDIA_RELEASE, headers=headers)


async def table(request: web.Request) -> web.Response:
    """The decoded table of a release (section 15.4)."""
    found = await _stored(request, registry.summary)
    return web.json_response(found, headers={hdrs.CACHE_CONTROL: FOR_EVER})


async def openapi(_request: web.Request) -> web.Response:
    """This interface as OpenAPI 3.1."""
    return web.json_response(document())


async def livez(_request: web.Request) -> web.Response:
    """The event loop runs."""
    return web.json_response({"live": True})


async def readyz(request: web.Request) -> web.Response:
    """Whether reports can be taken now; the reasons are on the admin listener."""
    ready = not request.app[PUBLIC].health.reasons()
    return web.json_response({"ready": ready}, status=200 if ready else 503)


@web.middleware
async def paced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tells every client when to come back (section 10.3)."""
    response = await handler(request)
    if request.path.startswith("/v1/"):
        pace = request.app[PUBLIC].pace
        pace.arrived()
        response.headers.update(pace.headers())
    return response


def cross_origin(allowed: tuple[str, ...]) -> Any:
    """Lets pages of the listed origins call, without credentials, and read what they need."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        preflight = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if origin in allowed and preflight and request.method == hdrs.METH_OPTIONS:
            response: web.StreamResponse = web.Response(status=204)
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST"
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Content-Type"
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "86400"
        else:
            response = await handler(request)
        public_headers(response, origin, allowed)
        return response

    return middleware


def public_headers(
    response: web.StreamResponse, origin: str | None, allowed: tuple[str, ...]
) -> None:
    """Tells a browser whether a page of `origin` may read this answer."""
    if allowed:
        response.headers[hdrs.VARY] = hdrs.ORIGIN
    if origin is not None and origin in allowed:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = f"{WINDOW_HEADER}, Retry-After"


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _round(request: web.Request) -> Round:
    return await request.app[PUBLIC].book.find(_round_id(request))


def _round_id(request: web.Request) -> bytes:
    text = request.match_info["round"]
    if not ROUND_ID.fullmatch(text):
        raise RuleError("unknown_round")
    return bytes.fromhex(text)


async def _stored(request: web.Request, read: Callable[[sqlite3.Connection, bytes], Any]) -> Any:
    round_id = _round_id(request)
    return await request.app[PUBLIC].database.run(lambda connection: read(connection, round_id))
