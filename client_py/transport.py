"""HTTP to a collector (docs/protocol.md sections 10 and 12).

A collector may be hostile: redirects are refused, answers are bounded in time and size, content
codings are not undone, cookies are not kept, and an answer counts for something only if it is one
that the text describes. `judge` says what an answer means, `Backoff` when to try again.

Leaves out: what to send (`client`).
"""

import asyncio
import base64
import binascii
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp

from client_py.receipts import Outcome
from dandelion.errors import TOKENS
from dandelion.params import (
    DESCRIPTOR_BYTES_MAX,
    MEDIA_PROBLEM,
    MEDIA_REPORT,
    PROBLEM_TYPE_PREFIX,
    WINDOW_HEADER,
)

# Base64 of so many envelopes of the greatest length; more rounds than that are not read.
ROUNDS_MAX: Final = 64
LISTING_BYTES_MAX: Final = 4 * 1024 * 1024
REPLY_BYTES_MAX: Final = 65_536

# However long a collector asks a client to stay away, it comes back within a day.
ABSENCE_MAX_S: Final = 86_400

# Refusals that may end: everything else that is refused stays refused.
_PASSING: Final = frozenset(
    (
        "not_open",
        "request_timeout",
        "overloaded",
        "draining",
        "store_unavailable",
        "helper_unavailable",
        "internal",
    )
)


_TOO_MANY: Final = 429

_ROUND_ID: Final = re.compile(r"[0-9a-f]{32}")


class TransportError(Exception):
    """No usable answer. The message is one of a few fixed phrases, never the peer's words."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, bounded in size. Header values that make no sense are absent."""

    status: int
    body: bytes = b""
    media_type: str = ""
    retry_after: int | None = None
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class Listed:
    """One open round of the listing: what the collector calls it, and its envelope."""

    round_id: str
    envelope: bytes


@dataclass(frozen=True)
class Verdict:
    """What an answer to a report means; `token` and `detail` say why it was not taken."""

    outcome: Outcome
    token: str = ""
    detail: str = ""


class Transport(Protocol):
    """How a client reaches one collector."""

    async def get_rounds(self) -> Reply:
        """`GET /v1/rounds`.

        Raises:
            TransportError: no usable answer.
        """

    async def post_report(self, round_id: bytes, body: bytes) -> Reply:
        """`POST /v1/rounds/{round}/reports`.

        Raises:
            TransportError: no usable answer; the report may have been taken or not.
        """


@dataclass(frozen=True)
class Timeouts:
    """Seconds: for a connection, and for a whole exchange."""

    connect_s: float = 10.0
    total_s: float = 30.0


class HttpTransport:
    """A `Transport` over aiohttp. Usable in one event loop, as an async context manager."""

    def __init__(self, endpoint: str, timeouts: Timeouts = Timeouts()) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total_s, connect=self._timeouts.connect_s
            ),
            auto_decompress=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get_rounds(self) -> Reply:
        return await self._exchange("GET", "/v1/rounds", None, LISTING_BYTES_MAX)

    async def post_report(self, round_id: bytes, body: bytes) -> Reply:
        path = f"/v1/rounds/{round_id.hex()}/reports"
        return await self._exchange("POST", path, body, REPLY_BYTES_MAX)

    async def _exchange(self, method: str, path: str, body: bytes | None, limit: int) -> Reply:
        if self._session is None:
            raise TransportError("not connected")
        headers = {} if body is None else {"Content-Type": MEDIA_REPORT}
        try:
            async with self._session.request(
                method, self._endpoint + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await _read(response, limit)
        except TimeoutError:
            raise TransportError("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError):
            # ValueError: aiohttp's parsers let some malformed answers through as such.
            raise TransportError("no connection, or not HTTP") from None
        return reply(response.status, response.headers, content)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > limit:
            response.close()
            raise TransportError("the answer is too large")
    return bytes(content)


def reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """An answer with its headers read. `headers` looks names up without regard to case.

    Raises:
        TransportError: a redirect, or a content coding.
    """
    if 300 <= status < 400:
        raise TransportError("redirected, which is refused")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TransportError("a content coding, which is refused")
    return Reply(
        status,
        body,
        headers.get("Content-Type", "").split(";")[0].strip().lower(),
        _seconds(headers.get("Retry-After", "")),
        _window(headers.get(WINDOW_HEADER, "")),
    )


def read_listing(answer: Reply) -> tuple[Listed, ...]:
    """Open rounds of `GET /v1/rounds` (section 10.1).

    Raises:
        TransportError: the answer is none.
    """
    if answer.status != 200:
        raise TransportError(f"status {answer.status}")
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise TransportError("not JSON") from None
    rounds = document.get("rounds") if isinstance(document, dict) else None
    if not isinstance(rounds, list) or len(rounds) > ROUNDS_MAX:
        raise TransportError("not a list of rounds")
    return tuple(_listed(each) for each in rounds)


def _listed(item: object) -> Listed:
    round_id = item.get("round") if isinstance(item, dict) else None
    envelope = item.get("envelope") if isinstance(item, dict) else None
    if not isinstance(round_id, str) or not _ROUND_ID.fullmatch(round_id):
        raise TransportError("not a list of rounds")
    if not isinstance(envelope, str):
        raise TransportError("not a list of rounds")
    if len(envelope) > 2 * DESCRIPTOR_BYTES_MAX:
        raise TransportError("an envelope is too large")
    try:
        return Listed(round_id, base64.b64decode(envelope, validate=True))
    except (binascii.Error, ValueError):
        raise TransportError("not a list of rounds") from None


def judge(answer: Reply) -> Verdict:
    """What the answer to a report means (sections 10.2 and 12).

    Only a problem document with a known token and its own status refuses for good. Whatever else
    arrives, perhaps from a proxy in between, leaves the report waiting.
    """
    if answer.status == 201:
        return Verdict(Outcome.ACCEPTED)
    if answer.status == 200:
        return _duplicate(answer)
    token = _problem_token(answer)
    if token is None:
        return Verdict(Outcome.WAITING, detail=f"status {answer.status}")
    passing = token in _PASSING or answer.status == _TOO_MANY
    outcome = Outcome.WAITING if passing else Outcome.REJECTED
    return Verdict(outcome, token, TOKENS[token].title)


def _duplicate(answer: Reply) -> Verdict:
    """200 says "this report is counted already", but so does many a login page of a hotel."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and document.get("result") == "duplicate":
        return Verdict(Outcome.DUPLICATE)
    return Verdict(Outcome.WAITING, detail="status 200 without a result")


def _problem_token(answer: Reply) -> str | None:
    if answer.media_type != MEDIA_PROBLEM:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not kind.startswith(PROBLEM_TYPE_PREFIX):
        return None
    token = kind.removeprefix(PROBLEM_TYPE_PREFIX)
    known = TOKENS.get(token)
    return token if known is not None and known.status == answer.status else None


class Backoff:
    """Exponential back-off with full jitter: uniform between 0 and a bound that doubles."""

    def __init__(self, rng: random.Random, *, base_s: float = 1.0, cap_s: float = 60.0) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s

    def wait(self, attempt: int, retry_after: int | None) -> float:
        """Seconds to wait after the given attempt, from 1: at least what the server asked for."""
        bound = min(self._cap_s, self._base_s * 2.0 ** min(attempt - 1, 20))
        jitter = self._rng.uniform(0.0, bound)
        if retry_after is None:
            return jitter
        return min(retry_after, ABSENCE_MAX_S) + jitter


def visit(window: tuple[int, int], now: float, rng: random.Random) -> int:
    """When to come back: uniform in the window, and within a day from now (section 10.3)."""
    drawn = rng.uniform(*window)
    return int(min(max(drawn, now), now + ABSENCE_MAX_S))


def _seconds(text: str) -> int | None:
    """`Retry-After` in seconds. Its other form, a date, does not occur in this protocol."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _window(text: str) -> tuple[int, int] | None:
    parts: Sequence[str] = text.split(" ")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 13 for p in parts):
        return None
    start, end = int(parts[0]), int(parts[1])
    return (start, end) if start <= end else None


async def pause(seconds: float) -> None:
    """Waits. Clients take it as an argument, so that tests need not."""
    await asyncio.sleep(seconds)
