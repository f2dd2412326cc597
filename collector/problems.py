"""From errors to problem documents (docs/protocol.md section 12).

`WireError` and `RuleError` travel with their token. Whatever else surfaces is our fault: it is
logged by type and place and answered with `internal` and nothing inside.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from collector import logs
from dandelion.errors import DandelionError
from dandelion.service.http_guard import require_plain
from dandelion.service.problems import problem_response, refusal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_S: Final = web.AppKey("retry_s", int)


def fault(error: BaseException | None) -> None:
    """Logs a fault of ours."""
    logs.event("internal", error=error)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every error with its problem document."""
    retry_s = request.app.get(RETRY_S, 2)
    try:
        require_plain(request)
        return await handler(request)
    except DandelionError as error:
        response = problem_response(error, retry_s=retry_s)
        if error.token == "request_timeout":  # noqa: S105 - a token of section 12
            response.force_close()
    except web.HTTPException as error:
        response = refusal(error)
    except ConnectionError:
        # The client has gone; there is nobody to answer.
        raise
    except Exception as error:  # noqa: BLE001 - logged; the one place where our faults surface
        fault(error)
        response = problem_response("internal")
    if hdrs.TRANSFER_ENCODING in request.headers:
        # Whatever stood between may have seen the end of this request elsewhere.
        response.force_close()
    return response
