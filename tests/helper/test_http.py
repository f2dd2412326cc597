"""The door and the bodies: HTTP as the helper speaks it (docs/protocol.md sections 11 and 12)."""

import asyncio
import gzip
import json
import logging
import sys
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import hdrs

from dandelion.errors import TOKENS
from dandelion.params import MEDIA_ASK, MEDIA_ENVELOPE
from dandelion.schemes import oneshot
from dandelion.service import http_guard
from dandelion.service.logs import JsonFormatter
from helper import app, handlers, logs
from helper.handlers import ANSWERS, ASK_BYTES_MAX, ENVELOPE_BYTES_MAX, HttpLimits
from helper.signing import Signer
from tests.helper.builders import (
    T0,
    TOKEN,
    Bench,
    Running,
    ask_of,
    closed,
    envelope_of,
    make_descriptor,
    reports_of,
)

CTX = "ab" * 32
GUARDED = [
    ("POST", "/v1/keys"),
    ("POST", "/v1/descriptors"),
    ("POST", f"/v1/rounds/{CTX}/shards/0/ask"),
    ("GET", f"/v1/rounds/{CTX}/shards/0/answer"),
    ("GET", "/v1/nothing"),
]
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


async def test_identity_and_liveness_are_public(bench: Bench) -> None:
    """Two paths answer anyone."""
    async with bench.helper() as helper:
        reply = await helper.request("GET", "/v1/identity", headers={})
        assert reply.json == {"identity": bench.identity.hex()}
        assert (await helper.request("GET", "/livez", headers={})).status == 200


@pytest.mark.parametrize("method,path", GUARDED)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer  {TOKEN}",
    ],
)
async def test_every_other_path_needs_the_token(
    bench: Bench, method: str, path: str, authorization: str | None
) -> None:
    """Without the exact token nothing is even looked for, and nothing is recorded."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with bench.helper() as helper:
        before = bench.record()
        reply = await helper.request(method, path, headers=headers)
        assert (reply.token, reply.status) == ("unauthorized", 401)
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert bench.record() == before


async def test_each_of_several_tokens_opens(bench: Bench) -> None:
    """Tokens rotate: all that are configured are accepted, from the file as from the list."""
    path = bench.directory / "tokens"
    path.write_text("old-token\nnew-token\n")
    bench.configure(token_file=path)
    async with bench.helper() as helper:
        for token in (TOKEN, "old-token", "new-token"):
            headers = {"Authorization": f"bearer {token}"}
            reply = await helper.request("POST", "/v1/keys", headers=headers)
            assert reply.status == 201


@pytest.mark.parametrize(
    "method,path,token",
    [
        ("GET", "/v1/nothing", "not_found"),
        ("GET", f"/v1/rounds/{CTX.upper()}/shards/0/answer", "not_found"),
        ("GET", f"/v1/rounds/{CTX[:-1]}/shards/0/answer", "not_found"),
        ("GET", f"/v1/rounds/{CTX}/shards/00/answer", "not_found"),
        ("GET", f"/v1/rounds/{CTX}/shards/-1/answer", "not_found"),
        ("DELETE", "/v1/keys", "method_not_allowed"),
        ("GET", f"/v1/rounds/{CTX}/shards/0/answer", "unknown_round"),
    ],
)
async def test_paths(bench: Bench, method: str, path: str, token: str) -> None:
    """One spelling of every path; the rest are problem documents as well."""
    async with bench.helper() as helper:
        reply = await helper.request(method, path)
        assert reply.token == token
        document = reply.json
        assert document["title"] == TOKENS[token].title
        assert document["status"] == reply.status == TOKENS[token].status


async def test_allowed_methods_are_named(bench: Bench) -> None:
    """405 says what is allowed (RFC 9110 section 15.5.6)."""
    async with bench.helper() as helper:
        assert (await helper.request("DELETE", "/v1/keys")).headers["Allow"] == "POST"


BODIES: dict[str, tuple[str, dict[str, str], int]] = {
    "media type": ("media_type", {"Content-Type": "application/json"}, 10),
    "no media type": ("media_type", {"Content-Type": ""}, 10),
    "gzip": ("encoding_refused", {"Content-Encoding": "gzip"}, 10),
    "identity": ("encoding_refused", {"Content-Encoding": "identity"}, 10),
    "empty": ("truncated", {}, 0),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("method,path", GUARDED[1:3])
async def test_bodies_that_are_refused_unread(
    bench: Bench, name: str, method: str, path: str
) -> None:
    """What is no message of the right kind is refused before it is parsed."""
    token, headers, size = BODIES[name]
    media = MEDIA_ENVELOPE if path.endswith("descriptors") else MEDIA_ASK
    async with bench.helper() as helper:
        before = bench.record()
        options: dict[str, Any] = {"headers": {"Content-Type": media, **AUTHORISED, **headers}}
        reply = await helper.request(method, path, data=bytes(size), **options)
        assert reply.token == (token if size or path.endswith("descriptors") else "truncated")
        assert bench.record() == before


async def test_bodies_are_never_decompressed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the refusal of codings is missing, what is parsed is what was sent."""
    blind = SimpleNamespace(**vars(hdrs) | {"CONTENT_ENCODING": "Nowhere"})
    monkeypatch.setattr(http_guard, "hdrs", blind)
    async with bench.helper() as helper:
        headers = {"Content-Type": MEDIA_ASK, "Content-Encoding": "gzip", **AUTHORISED}
        packed = gzip.compress(b"\x01" * 1_000)
        reply = await helper.request("POST", GUARDED[2][1], data=packed, headers=headers)
        # The first byte is gzip's, not the version that was packed.
        assert reply.token == "bad_version"


async def raw(helper: Running, head: str, body: bytes = b"") -> bytes:
    """Sends bytes as they are and returns everything that comes back until the connection ends."""
    host, port = helper.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + body)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


def head_of(path: str, media: str, *lines: str) -> str:
    """A request's head that closes the connection."""
    given = [f"POST {path} HTTP/1.1", "Host: helper", "Connection: close"]
    given += [f"Authorization: Bearer {TOKEN}", f"Content-Type: {media}", *lines]
    return "\n".join(given) + "\n\n"


@pytest.mark.parametrize(
    "path,media", [(GUARDED[1][1], MEDIA_ENVELOPE), (GUARDED[2][1], MEDIA_ASK)]
)
async def test_length_is_required(bench: Bench, path: str, media: str) -> None:
    """Neither a chunked body nor one without a length is read."""
    async with bench.helper() as helper:
        chunked = head_of(path, media, "Transfer-Encoding: chunked")
        assert b"problem:length_required" in await raw(helper, chunked, b"1\r\nx\r\n0\r\n\r\n")
        assert b"problem:length_required" in await raw(helper, head_of(path, media))


@pytest.mark.parametrize(
    "path,media,most",
    [
        (GUARDED[1][1], MEDIA_ENVELOPE, ENVELOPE_BYTES_MAX),
        (GUARDED[2][1], MEDIA_ASK, ASK_BYTES_MAX),
    ],
)
async def test_length_is_judged_before_the_body_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, path: str, media: str, most: int
) -> None:
    """One byte more than the largest message is refused though none of it was sent."""
    limits = HttpLimits(10, body_s=0.05, body_bytes_per_s=2**60, linger_s=0.01)
    monkeypatch.setattr(app, "HttpLimits", lambda _: limits)
    async with bench.helper() as helper:
        reply = await raw(helper, head_of(path, media, f"Content-Length: {most + 1}"))
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert b"problem:too_large" in reply
        waiting = await raw(helper, head_of(path, media, f"Content-Length: {most}"))
        assert b"problem:request_timeout" in waiting


async def test_what_is_not_http_is_answered_without_an_echo(bench: Bench) -> None:
    """A malformed head gets a problem document that repeats none of it."""
    async with bench.helper() as helper:
        for head in (
            "GET /livez HTTP/1.1\nHost: helper\nsecret-marker\n\n",
            "GET /secret-marker\x00 HTTP/1.1\nHost: helper\n\n",
            "secret-marker\n\n",
        ):
            reply = await raw(helper, head)
            assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
            assert b"problem:bad_request" in reply
            assert b"marker" not in reply


async def test_unknown_http_version_is_refused(bench: Bench) -> None:
    """HTTP/2 over a plain connection is no request."""
    async with bench.helper() as helper:
        reply = await raw(helper, "GET /livez HTTP/2.0\nHost: helper\nConnection: close\n\n")
        assert b"problem:bad_request" in reply


async def test_keys_take_no_body(bench: Bench) -> None:
    """A body where none belongs is a malformed request, and no key is made."""
    async with bench.helper() as helper:
        before = bench.record()
        reply = await helper.request("POST", "/v1/keys", data=b"x")
        assert reply.token == "bad_request"
        assert bench.record() == before


async def test_slow_heads_lose_their_connection(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that never says a whole head is cut; one that works is not."""
    monkeypatch.setattr(app, "HttpLimits", lambda _: HttpLimits(10, header_s=0.2))
    async with bench.helper() as helper:
        assert await raw(helper, "GET /livez HTTP/1.1\nHost") == b""
        assert (await helper.request("GET", "/livez")).status == 200


async def test_our_fault_says_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unforeseen exception is `internal` outside, and type and place in the log."""

    def broken(*_args: object) -> bytes:
        raise LookupError("secret-marker")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Signer, "make_key", broken)
    async with bench.helper() as helper:
        reply = await helper.request("POST", "/v1/keys")
    assert reply.json == {
        "type": "urn:dandelion:problem:internal",
        "title": "Internal error",
        "status": 500,
    }
    lines = [JsonFormatter().format(record) for record in caplog.records]
    (line,) = [json.loads(line) for line in lines if '"internal"' in line]
    assert line["error"] == "LookupError"
    assert "test_http.py" in line["at"]
    assert not any("marker" in line for line in lines)


async def test_few_asks_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys need memory: beyond `asks_at_once_max` an ask is turned away before it is read."""
    bench.configure(asks_at_once_max=1)
    hanging: asyncio.Future[bytes] = asyncio.Future()
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)

        async def wait(*_args: object) -> bytes:
            return await asyncio.shield(hanging)

        with monkeypatch.context() as patch:
            patch.setattr(handlers, "_read", wait)
            first = asyncio.create_task(helper.ask(ask_of(d, reports_of(d, range(5)))))
            while not helper.app[ANSWERS]._arriving:  # noqa: ASYNC110
                await asyncio.sleep(0)
            reply = await helper.ask(ask_of(d, reports_of(d, range(5))))
            assert reply.token == "overloaded"
            assert int(reply.headers["Retry-After"]) >= 1
            hanging.set_result(ask_of(d, reports_of(d, range(5))).encode())
            assert (await first).status == 202
        await helper.computed()


async def test_draining_helper_takes_no_asks(bench: Bench) -> None:
    """While it stops, a helper still hands out answers but begins none."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        body = await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
        await helper.app[ANSWERS].drain(0)
        reply = await helper.ask(ask_of(d, reports_of(d, range(5))))
        assert reply.token == "draining"
        assert (await helper.fetch(d.ctx)).body == body


async def test_logs_hold_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Through a whole round with refusals, no line has a token, key, root, scalar or sum in it."""
    caplog.set_level(logging.DEBUG)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        (path,) = bench.roots.iterdir()
        root = path.read_bytes()
        closed(bench, d)
        reports = reports_of(d, range(5))
        ask = ask_of(d, reports)
        assert (await helper.ask(ask.encode()[:-1], ctx=d.ctx)).token == "truncated"
        wrong = {"Authorization": "Bearer wrong-secret-marker"}
        assert (await helper.request("POST", "/v1/keys", headers=wrong)).status == 401
        await raw(helper, f"GET /livez HTTP/1.1\nHost: x\nAuthorization {TOKEN}\n\n")
        assert (await helper.sign(envelope_of(d))).status == 200
        body = await bench.answered(helper, ask)
        late = make_descriptor(helper.identity, await helper.make_key(), closes=T0 + 1)
        assert (await helper.sign(envelope_of(late)[:-1])).token == "truncated"
    secrets = [root, oneshot.round_keys(root)[0], *(helper.mask_key for helper in d.helpers)]
    secrets += [report.epk for report in reports] + [ask.sum, ask.set_digest, body[-64:]]
    text = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    assert d.round_id.hex() in text
    for hidden in [TOKEN, "wrong-secret-marker", "127.0.0.1", *(s.hex() for s in secrets)]:
        assert hidden not in text
    for record in caplog.records:
        if record.name == "helper":
            assert record.getMessage() in logs.EVENTS


def test_log_lines_of_other_packages_lose_their_message() -> None:
    """Of aiohttp's and asyncio's records only where they come from and the type is kept."""
    try:
        raise ValueError("secret-marker")
    except ValueError:
        record = logging.LogRecord(
            "aiohttp.server", logging.ERROR, __file__, 1, "secret-%s", ("marker",), sys.exc_info()
        )
    line = JsonFormatter().format(record)
    assert "marker" not in line
    assert (json.loads(line)["logger"], json.loads(line)["error"]) == (
        "aiohttp.server",
        "ValueError",
    )


def test_log_vocabulary_is_closed() -> None:
    """An event that nobody listed is a bug."""
    with pytest.raises(KeyError):
        logs.event("surprise")


async def test_session_reuse_survives_refusals(bench: Bench) -> None:
    """One connection serves a refusal and then a success."""
    async with bench.helper() as helper, aiohttp.ClientSession() as session:
        url = helper.base + "/v1/keys"
        for headers, status in (({}, 401), (AUTHORISED, 201)):
            async with session.post(url, headers=headers) as response:
                assert response.status == status
