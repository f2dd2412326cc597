"""The admin HTTP interface, on a listener of its own: queries, rounds, results, ledger.

Every route names the scope it needs in one table; a route without one does not exist. Health and
metrics are open to whoever reaches the listener: they hold counts from closed lists, nothing else.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import hdrs, web

from collector import ledger, logs, metrics, registry, tokens
from collector.config import Config
from collector.database import Database
from collector.handlers import ROUND_ID
from collector.health import Health
from collector.problems import Handler
from collector.questions import (
    QueryRequest,
    RoundRequest,
    admin_view,
    make_query,
    parse,
    refuse_expired,
)
from collector.registry import RoundRow
from collector.rounds import Driver
from collector.tokens import Scope
from dandelion.errors import RuleError, WireError
from dandelion.params import JSON_BYTES_MAX, MEDIA_RELEASE
from dandelion.service.http_guard import body_length, expect_nothing_yet, read_body


@dataclass
class Admin:
    """What the admin handlers need. `snapshots` gives each process's metrics by its name."""

    config: Config
    database: Database
    driver: Driver
    health: Health
    snapshots: Callable[[], Awaitable[Mapping[str, metrics.Snapshot]]]
    clock: Callable[[], float]


ADMIN: Final = web.AppKey("admin", Admin)


async def add_query(request: web.Request) -> web.Response:
    """Compiles and stores a query."""
    admin = request.app[ADMIN]
    wanted = parse(QueryRequest, await _json_body(request))
    now = int(admin.clock())
    made = partial(make_query, wanted, len(admin.config.helpers), now)
    document = await asyncio.to_thread(made)
    add = partial(registry.add_query, name=wanted.name, document=document, now=now)
    await admin.database.run(add)
    logs.event("query_added")
    return web.json_response(admin_view(document), status=201)


async def list_queries(request: web.Request) -> web.Response:
    """All queries."""
    found = await request.app[ADMIN].database.run(registry.queries)
    return web.json_response({"queries": [admin_view(it) for it in found]})


async def show_query(request: web.Request) -> web.Response:
    """One query."""
    read = partial(registry.query, name=request.match_info["query"])
    return web.json_response(admin_view(await request.app[ADMIN].database.run(read)))


async def open_round(request: web.Request) -> web.Response:
    """Opens a round of a query: every helper signs before anybody hears of it."""
    admin = request.app[ADMIN]
    wanted = parse(RoundRequest, await _json_body(request))
    times = wanted.times(admin.clock(), admin.config.lifetimes)
    document = await admin.database.run(partial(registry.query, name=wanted.query))
    refuse_expired(document, times[1])
    row = await admin.driver.open(document, times)
    return web.json_response(await _view(admin, row), status=201)


async def list_rounds(request: web.Request) -> web.Response:
    """Rounds, the one that closes last first."""
    admin = request.app[ADMIN]
    rows = await admin.database.run(registry.round_rows)
    return web.json_response({"rounds": [await _view(admin, row) for row in rows]})


async def show_round(request: web.Request) -> web.Response:
    """One round with its envelope."""
    admin = request.app[ADMIN]
    row = await _row(request)
    envelope = base64.b64encode(row.round.envelope).decode()
    return web.json_response(await _view(admin, row) | {"envelope": envelope})


async def close_round(request: web.Request) -> web.Response:
    """Ends the taking of reports; the set is still fixed at `closes`, never before."""
    admin = request.app[ADMIN]
    row = await admin.driver.close(_round_id(request))
    return web.json_response(await _view(admin, row))


async def list_results(request: web.Request) -> web.Response:
    """Ended rounds, newest first."""
    return web.json_response({"results": await request.app[ADMIN].database.run(registry.ended)})


async def show_result(request: web.Request) -> web.Response:
    """The table of a release."""
    read = partial(registry.summary, round_id=_round_id(request))
    return web.json_response(await request.app[ADMIN].database.run(read))


async def show_release(request: web.Request) -> web.Response:
    """The artefact of a release."""
    read = partial(registry.artefact, round_id=_round_id(request))
    body = await request.app[ADMIN].database.run(read)
    return web.Response(body=body, content_type=MEDIA_RELEASE)


async def show_ledger(request: web.Request) -> web.Response:
    """The ledger with the verdict on its chain."""
    return web.json_response(await request.app[ADMIN].database.run(ledger.audit))


async def show_metrics(request: web.Request) -> web.Response:
    """Every process's numbers in the text format of Prometheus."""
    text = metrics.render(await request.app[ADMIN].snapshots())
    return web.Response(text=text, content_type="text/plain", charset="utf-8")


async def livez(_request: web.Request) -> web.Response:
    """The event loop runs."""
    return web.json_response({"live": True})


async def readyz(request: web.Request) -> web.Response:
    """Whether all is well here, and the reasons if not.

    A round that a fault of ours holds up is one of them; the public listener stays ready.
    """
    admin = request.app[ADMIN]
    reasons = admin.health.reasons() + (["driver_failed"] if admin.driver.failing else [])
    body = {"ready": not reasons, "reasons": reasons}
    return web.json_response(body, status=503 if reasons else 200)


@dataclass(frozen=True)
class Route:
    """A route and the scope it needs; None is open to whoever reaches the listener."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: Scope | None


ROUTES: Final = (
    Route("GET", "/livez", livez, None),
    Route("GET", "/readyz", readyz, None),
    Route("GET", "/metrics", show_metrics, None),
    Route("GET", "/admin/v1/queries", list_queries, Scope.ROUND_READ),
    Route("POST", "/admin/v1/queries", add_query, Scope.QUERY_WRITE),
    Route("GET", "/admin/v1/queries/{query}", show_query, Scope.ROUND_READ),
    Route("GET", "/admin/v1/rounds", list_rounds, Scope.ROUND_READ),
    Route("POST", "/admin/v1/rounds", open_round, Scope.ROUND_WRITE),
    Route("GET", "/admin/v1/rounds/{round}", show_round, Scope.ROUND_READ),
    Route("POST", "/admin/v1/rounds/{round}/close", close_round, Scope.ROUND_CLOSE),
    Route("GET", "/admin/v1/results", list_results, Scope.RESULT_READ),
    Route("GET", "/admin/v1/results/{round}", show_result, Scope.RESULT_READ),
    Route("GET", "/admin/v1/results/{round}/release", show_release, Scope.RESULT_READ),
    Route("GET", "/admin/v1/ledger", show_ledger, Scope.AUDIT_READ),
)
_SCOPES: Final = {(route.method, route.path): route.scope for route in ROUTES}


def admin_routes() -> list[web.RouteDef]:
    """The table above as aiohttp wants it."""
    return [
        web.route(it.method, it.path, it.handler, expect_handler=expect_nothing_yet)
        for it in ROUTES
    ]


@web.middleware
async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets a request pass whose token has the scope of its route; what has no route, nobody."""
    resource = request.match_info.route.resource
    place = (request.method, resource.canonical if resource is not None else "")
    if place in _SCOPES and _SCOPES[place] is None:
        return await handler(request)
    holder = await _holder(request)
    if holder is None:
        raise RuleError("unauthorized")
    if place in _SCOPES and _SCOPES[place] not in holder.scopes:
        raise RuleError("forbidden")
    # A page of another site must not reach what happens to be on the operator's network.
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise RuleError("forbidden")
    return await handler(request)


async def _holder(request: web.Request) -> tokens.Holder | None:
    admin = request.app[ADMIN]
    kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if kind.lower() != "bearer":
        return None
    now = int(admin.clock())
    return await admin.database.run(partial(tokens.holder_of, token=token, now=now))


async def _json_body(request: web.Request) -> bytes:
    size = body_length(request)
    if size > JSON_BYTES_MAX:
        raise WireError("too_large")
    if request.content_type != "application/json":
        raise WireError("media_type")
    return await read_body(request, size, request.app[ADMIN].config.limits)


def _round_id(request: web.Request) -> bytes:
    text = request.match_info["round"]
    if not ROUND_ID.fullmatch(text):
        raise RuleError("unknown_round")
    return bytes.fromhex(text)


async def _row(request: web.Request) -> RoundRow:
    read = partial(registry.round_row, round_id=_round_id(request))
    return await request.app[ADMIN].database.run(read)


async def _view(admin: Admin, row: RoundRow) -> dict[str, Any]:
    d = row.descriptor
    view: dict[str, Any] = {
        "round": d.round_id.hex(),
        "ctx": d.ctx.hex(),
        "query": row.round.query,
        "phase": row.phase,
        "reason": row.reason,
        "opens": d.opens,
        "closes": d.closes,
        "expires": d.expires,
        "ended": row.ended,
        "cohort_min": d.cohort_min,
        "cohort_max": d.cohort_max,
        "shards": d.shards,
        "report_bytes": d.report_bytes,
        "reports": await admin.driver.reports(row),
    }
    return view
