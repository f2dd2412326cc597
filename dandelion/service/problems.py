"""RFC 9457 problem documents, as both services send them (docs/protocol.md section 12).

Each service has a middleware of its own that turns errors into these. `detail` never repeats input.
"""

import json
import random
from typing import Final

from aiohttp import hdrs, web

from dandelion.errors import DandelionError, problem, status_of
from dandelion.params import MEDIA_PROBLEM

# Section 10.3: come again, but not all at the same time.
RETRY_TOKENS: Final = frozenset({"overloaded", "draining", "store_unavailable"})
# No software versions, no guessing of types, and no copies unless a handler says so.
PLAIN_HEADERS: Final = {
    hdrs.SERVER: "dandelion",
    "X-Content-Type-Options": "nosniff",
    hdrs.CACHE_CONTROL: "no-store",
}

_OF_STATUS: Final = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "too_large",
    415: "media_type",
}
_RANDOM: Final = random.SystemRandom()


def token_of_status(status: int) -> str:
    """The token for a refusal that the web framework made, by its HTTP status."""
    return _OF_STATUS.get(status, "internal" if status >= 500 else "bad_request")


def problem_response(error: DandelionError | str, *, retry_s: int = 2) -> web.Response:
    """The problem document of an error or a token.

    `Retry-After`, where there is one, is drawn from once to three times `retry_s` seconds.
    """
    token = error.token if isinstance(error, DandelionError) else error
    headers = dict(PLAIN_HEADERS)
    if token in RETRY_TOKENS:
        headers[hdrs.RETRY_AFTER] = str(_RANDOM.randint(retry_s, 3 * retry_s))
    if token == "unauthorized":  # noqa: S105 - a token of section 12
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return web.Response(
        status=status_of(token),
        body=json.dumps(problem(error)).encode(),
        content_type=MEDIA_PROBLEM,
        headers=headers,
    )


def refusal(error: web.HTTPException) -> web.Response:
    """The problem document in place of a page of the web framework."""
    response = problem_response(token_of_status(error.status))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


async def say_little(_request: web.Request, response: web.StreamResponse) -> None:
    """Gives every answer the plain headers; how long it may be kept is the handler's word."""
    headers = response.headers
    headers[hdrs.SERVER] = PLAIN_HEADERS[hdrs.SERVER]
    headers["X-Content-Type-Options"] = PLAIN_HEADERS["X-Content-Type-Options"]
    if hdrs.CACHE_CONTROL not in headers:
        headers[hdrs.CACHE_CONTROL] = PLAIN_HEADERS[hdrs.CACHE_CONTROL]
