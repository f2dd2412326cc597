"""The collector's side of the helper interface (docs/protocol.md section 11).

Whatever a helper sends is bounded in size and time here, and verified by the caller before it is
used. A refusal travels with the helper's token; anything else means "not now".
"""

import asyncio
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from collector.config import HelperPeer
from dandelion.errors import TOKENS
from dandelion.params import (
    KEY_BYTES,
    MEDIA_ANSWER,
    MEDIA_ASK,
    MEDIA_ENVELOPE,
    MEDIA_PROBLEM,
    PROBLEM_TYPE_PREFIX,
    SIGNATURE_BYTES,
)

_JSON_BYTES_MAX: Final = 65_536
_BYTES_PER_S: Final = 1_048_576
_POLL_MAX_S: Final = 30
_SECONDS: Final = re.compile(r"[0-9]{1,9}")
# Refusals that may pass by themselves.
_PASSING: Final = frozenset(
    {"overloaded", "draining", "store_unavailable", "internal", "request_timeout", "too_many_keys"}
)


class HelperUnavailable(Exception):
    """No usable answer now. `reason` is a word for logs and operators."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HelperRefused(Exception):
    """The helper refuses, with a token of section 12."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token


class Helper:
    """One helper. `count` is told "ok", "refused" or "unavailable" for each request."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        peer: HelperPeer,
        timeout_s: float,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.identity = bytes.fromhex(peer.identity)
        self._session = session
        self._url = peer.url
        self._headers = {"Authorization": f"Bearer {peer.bearer()}"}
        self._timeout_s = timeout_s
        self._count = count

    @property
    def name(self) -> str:
        """How logs and operators call it: the start of its identity."""
        return self.identity.hex()[:8]

    async def new_key(self) -> bytes:
        """A mask key that has served no round, 32 bytes."""
        reply = await self._request("POST", "/v1/keys", 201, _JSON_BYTES_MAX)
        try:
            key = bytes.fromhex(json.loads(reply.body)["mask_key"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HelperUnavailable("not a key") from None
        if len(key) != KEY_BYTES:
            raise HelperUnavailable("not a key")
        return key

    async def sign(self, partial_envelope: bytes) -> bytes:
        """The helper's signature of a descriptor, 64 bytes, not yet verified."""
        reply = await self._request(
            "POST", "/v1/descriptors", 200, SIGNATURE_BYTES, partial_envelope, MEDIA_ENVELOPE
        )
        return reply.body

    async def ask(self, ctx: bytes, shard: int, ask: bytes) -> float:
        """Hands over an ask; seconds until the answer is worth polling for."""
        path = f"/v1/rounds/{ctx.hex()}/shards/{shard}/ask"
        reply = await self._request("POST", path, 202, _JSON_BYTES_MAX, ask, MEDIA_ASK)
        return reply.wait_s

    async def answer(self, ctx: bytes, shard: int, bytes_max: int) -> bytes | float:
        """The answer's bytes, not yet verified, or seconds until the next poll."""
        path = f"/v1/rounds/{ctx.hex()}/shards/{shard}/answer"
        reply = await self._request("GET", path, 200, bytes_max)
        if reply.status == 202:
            return reply.wait_s
        if reply.media != MEDIA_ANSWER:
            raise HelperUnavailable("not an answer")
        return reply.body

    async def _request(
        self,
        method: str,
        path: str,
        wanted: int,
        bytes_max: int,
        body: bytes | None = None,
        media: str | None = None,
    ) -> "_Reply":
        headers = self._headers | ({"Content-Type": media} if media else {})
        # A file-like body is sent in parts; bytes at once, which holds the event loop up.
        data = None if body is None else io.BytesIO(body)
        seconds = self._timeout_s + (len(body or b"") + bytes_max) / _BYTES_PER_S
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, self._url + path, data=data, headers=headers, allow_redirects=False
                ) as response,
            ):
                # The library reads a header when it is asked for one, so it is asked here.
                reply = _Reply(
                    response.status,
                    response.content_type,
                    _retry_after(response.headers.get("Retry-After", "")),
                    await _read(response, bytes_max),
                )
        except TimeoutError:
            self._count("unavailable")
            raise HelperUnavailable("timeout") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._count("unavailable")
            raise HelperUnavailable(type(error).__name__) from None
        if reply.status in (wanted, 202):
            self._count("ok")
            return reply
        raise self._refusal(reply)

    def _refusal(self, reply: "_Reply") -> HelperRefused | HelperUnavailable:
        token = _token(reply)
        if token is None or token in _PASSING:
            self._count("unavailable")
            return HelperUnavailable(token or f"status {reply.status}")
        self._count("refused")
        return HelperRefused(token)


@dataclass(frozen=True)
class _Reply:
    """What is used of an answer: status, media type, seconds until the next poll, body."""

    status: int
    media: str
    wait_s: float
    body: bytes


def new_session() -> aiohttp.ClientSession:
    """A session that follows nobody: no cookies, no proxies, no redirects, no decompression."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    )


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body, `bytes_max` at most; a problem document may be longer than that."""
    limit = max(bytes_max, _JSON_BYTES_MAX)
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > limit:
            raise HelperUnavailable("too much")
    return bytes(content)


def _token(reply: _Reply) -> str | None:
    if reply.media != MEDIA_PROBLEM:
        return None
    try:
        kind = json.loads(reply.body)["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(kind, str) or not kind.startswith(PROBLEM_TYPE_PREFIX):
        return None
    token = kind.removeprefix(PROBLEM_TYPE_PREFIX)
    return token if token in TOKENS else None


def _retry_after(text: str) -> float:
    return float(min(int(text), _POLL_MAX_S)) if _SECONDS.fullmatch(text) else 1.0
