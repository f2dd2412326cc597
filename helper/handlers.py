"""The helper's HTTP interface: decode, act, encode (docs/protocol.md section 11)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from dandelion.descriptor import decode_partial_envelope
from dandelion.errors import WireError
from dandelion.params import (
    COHORT_MAX_MAX,
    DESCRIPTOR_BYTES_MAX,
    HASH_BYTES,
    KEY_BYTES,
    MEDIA_ANSWER,
    MEDIA_ASK,
    MEDIA_ENVELOPE,
    SIGNATURE_BYTES,
)
from dandelion.service.http_guard import body_length, expect_nothing_yet, read_body
from helper.answers import Answers
from helper.signing import Signer
from helper.store import StateThread
from helper.workers import in_thread


@dataclass(frozen=True)
class HttpLimits:
    """What one connection and all of them may cost (`dandelion.service.http_guard`)."""

    connections_max: int
    header_s: float = 10.0
    # The largest ask has 128 MiB.
    body_s: float = 10.0
    body_bytes_per_s: int = 2**20
    request_s: float = 300.0
    keepalive_s: float = 15.0
    linger_s: float = 5.0


ANSWERS: Final = web.AppKey("answers", Answers)
CLOCK: Final[web.AppKey[Callable[[], float]]] = web.AppKey("clock")
IDENTITY: Final = web.AppKey("identity", bytes)
LIMITS: Final = web.AppKey("limits", HttpLimits)
SIGNER: Final = web.AppKey("signer", Signer)
STATE: Final = web.AppKey("state", StateThread)

ENVELOPE_BYTES_MAX: Final = 4 + DESCRIPTOR_BYTES_MAX + SIGNATURE_BYTES
ASK_HEAD_BYTES: Final = 1 + HASH_BYTES + 2 + 4 + HASH_BYTES + SIGNATURE_BYTES
ASK_BYTES_MAX: Final = ASK_HEAD_BYTES + KEY_BYTES * COHORT_MAX_MAX

routes: Final = web.RouteTableDef()
# `100 Continue` is for who has the token and declares a length that is welcome.
_PATIENT: Final = {"expect_handler": expect_nothing_yet}
_SHARD: Final = r"/v1/rounds/{ctx:[0-9a-f]{64}}/shards/{shard:0|[1-9][0-9]{0,4}}"


@routes.get("/livez", **_PATIENT)
async def livez(_request: web.Request) -> web.Response:
    """The loop runs."""
    return web.Response()


@routes.get("/v1/identity", **_PATIENT)
async def identity(request: web.Request) -> web.Response:
    """This helper's Ed25519 identity."""
    return web.json_response({"identity": request.app[IDENTITY].hex()})


@routes.post("/v1/keys", **_PATIENT)
async def make_key(request: web.Request) -> web.Response:
    """A new round root; its mask key is the answer (section 11.1)."""
    if request.body_exists and request.content_length != 0:
        raise WireError("bad_request", "the body must be empty")
    app = request.app
    mask_key = await app[STATE].run(app[SIGNER].make_key, int(app[CLOCK]()))
    return web.json_response({"mask_key": mask_key.hex()}, status=201)


@routes.post("/v1/descriptors", **_PATIENT)
async def sign_descriptor(request: web.Request) -> web.Response:
    """This helper's signature of a descriptor (section 11.2)."""
    app = request.app
    body = await _read(request, MEDIA_ENVELOPE, ENVELOPE_BYTES_MAX)
    descriptor, _ = await in_thread(lambda: decode_partial_envelope(body))
    app[SIGNER].require_collector(descriptor)
    signature = await app[STATE].run(app[SIGNER].sign, descriptor, int(app[CLOCK]()))
    return web.Response(body=signature, content_type="application/octet-stream")


@routes.post(_SHARD + "/ask", **_PATIENT)
async def ask(request: web.Request) -> web.Response:
    """Takes an ask that passes every rule of section 6."""
    answers = request.app[ANSWERS]
    with answers.admitted():
        body = await _read(request, MEDIA_ASK, ASK_BYTES_MAX)
        poll_after = await answers.ask(*_place(request), body)
    return _poll(poll_after)


@routes.get(_SHARD + "/answer", **_PATIENT)
async def answer(request: web.Request) -> web.Response:
    """The answer, once it is visible (section 11.4)."""
    found = await request.app[ANSWERS].answer(*_place(request))
    if isinstance(found, int):
        return _poll(found)
    return web.Response(body=found, content_type=MEDIA_ANSWER)


def _place(request: web.Request) -> tuple[bytes, int]:
    return bytes.fromhex(request.match_info["ctx"]), int(request.match_info["shard"])


def _poll(seconds: int) -> web.Response:
    return web.Response(status=202, headers={"Retry-After": str(seconds)})


async def _read(request: web.Request, media: str, bytes_max: int) -> bytes:
    """The whole body, judged before it is read.

    Raises:
        WireError: `length_required`, `encoding_refused`, `too_large`, `media_type`, `truncated`.
        RuleError: `request_timeout`.
    """
    size = body_length(request)
    if size > bytes_max:
        raise WireError("too_large")
    if request.content_type != media:
        raise WireError("media_type")
    return await read_body(request, size, request.app[LIMITS])
