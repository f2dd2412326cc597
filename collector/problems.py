"""From errors to RFC 9457 problem documents (docs/protocol.md section 12).

`WireError` and `RuleError` travel with their token. Whatever else surfaces is our fault: it is
logged by type and place and answered with `internal` and nothing inside. `detail` never repeats
input.
"""

import json
import random
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from collector import logs
from dandelion.errors import DandelionError, problem, status_of
from dandelion.params import MEDIA_PROBLEM

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Section 10.3: come again, but not all at the same time.
RETRY_TOKENS: Final = frozenset({"overloaded", "draining", "store_unavailable"})
SERVER: Final = "dandelion"
RETRY_S: Final = web.AppKey("retry_s", int)

_OF_STATUS: Final = {
    404: "not_found",
    405: "method_not_allowed",
    411: "length_required",
    413: "too_large",
    415: "media_type",
}
_RANDOM: Final = random.SystemRandom()


def token_of_status(status: int) -> str:
    """The token for a refusal that the web framework made, by its HTTP status."""
    return _OF_STATUS.get(status, "bad_request")


def problem_response(error: DandelionError | str, *, retry_s: int = 2) -> web.Response:
    """The problem document of an error or a token."""
    token = error.token if isinstance(error, DandelionError) else error
    headers: dict[str, str] = {hdrs.SERVER: SERVER}
    if token in RETRY_TOKENS:
        headers["Retry-After"] = str(_RANDOM.randint(retry_s, 3 * retry_s))
    if token == "unauthorized":  # noqa: S105 - a token of section 12
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=status_of(token),
        body=json.dumps(problem(error)).encode(),
        content_type=MEDIA_PROBLEM,
        headers=headers,
    )


async def say_little(_request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer: no software versions, no guessing, and no copies unless said."""
    response.headers[hdrs.SERVER] = SERVER
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every error with its problem document."""
    retry_s = request.app.get(RETRY_S, 2)
    try:
        return await handler(request)
    except DandelionError as error:
        response = problem_response(error, retry_s=retry_s)
        if error.token == "request_timeout":  # noqa: S105 - a token of section 12
            response.force_close()
    except web.HTTPException as error:
        response = problem_response(token_of_status(error.status))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
    except ConnectionError:
        # The client has gone; there is nobody to answer.
        raise
    except Exception as error:  # noqa: BLE001 - logged; the one place where our faults surface
        logs.event("internal", error=error)
        response = problem_response("internal")
    return response
