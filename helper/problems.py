"""From errors to RFC 9457 problem documents, and the door (docs/protocol.md sections 11 and 12).

`WireError` and `RuleError` travel with their token. Whatever else surfaces is our fault: it ends in
`Connection.handle_error`, is logged by type and place and answered with `internal` and nothing
inside. `detail` never repeats input.
"""

import hashlib
import hmac
import json
import random
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.typedefs import Middleware
from aiohttp.web_protocol import RequestHandler

from dandelion.errors import DandelionError, WireError, problem, status_of
from dandelion.params import MEDIA_PROBLEM
from helper import logs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PUBLIC_PATHS: Final = frozenset({"/livez", "/v1/identity"})
_RETRY: Final = frozenset({"overloaded", "draining", "store_unavailable"})
_RETRY_S: Final = 2
_OF_STATUS: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "too_large",
    415: "media_type",
}


def problem_response(error: DandelionError | str) -> web.Response:
    """The problem document of an error or a token."""
    token = error.token if isinstance(error, DandelionError) else error
    headers = {}
    if token in _RETRY:
        # Jitter spreads retries; it protects nothing.
        headers["Retry-After"] = str(_RETRY_S + random.randrange(_RETRY_S))  # noqa: S311
    if token == "unauthorized":  # noqa: S105
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=status_of(token),
        body=json.dumps(problem(error)).encode(),
        content_type=MEDIA_PROBLEM,
        headers=headers,
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every refusal with its problem document."""
    try:
        if request.version not in (HttpVersion10, HttpVersion11):
            raise WireError("bad_request", "HTTP version")
        return await handler(request)
    except DandelionError as error:
        logs.event("refused", token=error.token)
        response = problem_response(error)
    except web.HTTPException as error:
        token = _OF_STATUS.get(error.status, "bad_request")
        logs.event("refused", token=token)
        response = problem_response(token)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
    if not request.content.is_eof():
        response.force_close()
    return response


def authorised(token_hashes: tuple[bytes, ...]) -> Middleware:
    """Lets a request pass that carries a token with one of these SHA-256 hashes."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PUBLIC_PATHS:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
            # Every hash is compared, and the comparison itself takes the same time for all.
            matches = [hmac.compare_digest(given, known) for known in token_hashes]
            if scheme.lower() != "bearer" or not any(matches):
                return _refuse_entry(request)
        return await handler(request)

    return door


class Connection(RequestHandler):
    """A connection that answers what is not HTTP, and what went wrong in here, with a problem
    document.

    aiohttp's own answer would quote the offending bytes, and its log the exception's message.
    """

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed (4xx) or handled (5xx)."""
        if status >= 500:
            token = "internal"  # noqa: S105
            logs.event(token, error=exc)
        else:
            token = _OF_STATUS.get(status, "bad_request")
        response = problem_response(token)
        response.force_close()
        return response


def _refuse_entry(request: web.Request) -> web.Response:
    logs.event("refused", token="unauthorized")  # noqa: S106
    response = problem_response("unauthorized")
    if not request.content.is_eof():
        response.force_close()
    return response
