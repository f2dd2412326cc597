"""From errors to problem documents, and the door (docs/protocol.md sections 11 and 12).

`WireError` and `RuleError` travel with their token. Whatever else surfaces is our fault: it ends in
the guard's `handle_error`, is logged by type and place and answered with `internal` and nothing
inside.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from dandelion.errors import DandelionError, RuleError
from dandelion.service.http_guard import require_plain
from dandelion.service.problems import problem_response, refusal, token_of_status
from helper import logs

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PUBLIC_PATHS: Final = frozenset({"/livez", "/v1/identity"})


def fault(error: BaseException | None) -> None:
    """Logs a fault of ours."""
    logs.event("internal", error=error)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every refusal with its problem document."""
    try:
        require_plain(request)
        return await handler(request)
    except DandelionError as error:
        logs.event("refused", token=error.token)
        response = problem_response(error)
    except web.HTTPException as error:
        logs.event("refused", token=token_of_status(error.status))
        response = refusal(error)
    if not request.content.is_eof() or hdrs.TRANSFER_ENCODING in request.headers:
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
                raise RuleError("unauthorized")
        return await handler(request)

    return door
