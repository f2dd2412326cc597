"""Bytes that are not a request, clients that take their time, and connections without end."""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp.http_parser
import pytest
from aiohttp.web_protocol import RequestHandler

from collector.config import Limits
from collector.problems import fault
from collector.store import MemoryStore
from dandelion.service.http_guard import Runner
from dandelion.service.sweeper import Sweeper
from tests.collector.builders import plain_report
from tests.collector.door import Door, door, raw

SHORT = {
    "header_s": 0.4,
    "body_s": 0.4,
    "body_bytes_per_s": 1_000_000,
    "keepalive_s": 0.6,
    "linger_s": 0.1,
}
# Far above the short deadlines, far below what an unguarded server waits.
PATIENCE_S = 5


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Door]:
    """A door over a store in memory, with short deadlines."""
    async with door(tmp_path, MemoryStore(), limits=SHORT) as opened:
        yield opened


def post(it: Door, *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """A request for the report path with these header lines."""
    lines = [f"POST {it.path} {version}", "Host: x", "Content-Type: text/plain", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def statuses(answer: bytes) -> list[int]:
    """Status codes of everything that was answered."""
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


def token(answer: bytes) -> str:
    """The token of the problem document at the end of an answer."""
    document = json.loads(answer[answer.index(b"\r\n\r\n") + 4 :])
    return str(document["type"]).rpartition(":")[2]


SMUGGLED = b"GET /v1/queries HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def corpus(it: Door) -> dict[str, bytes]:
    """Requests that two parsers might read differently, or that nobody should send."""
    report = plain_report(it.d, 1).encode()
    size = f"Content-Length: {len(report)}"
    chunk = b"%x\r\n" % len(report) + report + b"\r\n0\r\n\r\n"
    return {
        "length and chunked": post(it, size, "Transfer-Encoding: chunked", body=chunk + SMUGGLED),
        "chunked": post(it, "Transfer-Encoding: chunked", body=chunk),
        "unknown transfer coding": post(it, "Transfer-Encoding: xchunked", size, body=report),
        "two transfer codings": post(it, "Transfer-Encoding: gzip, chunked", body=chunk),
        "two lengths": post(it, size, "Content-Length: 5", body=report + SMUGGLED),
        "the same length twice": post(it, size, size, body=report),
        "a list of lengths": post(it, f"{size}, {len(report)}", body=report),
        "negative length": post(it, "Content-Length: -1", body=report),
        "length with a sign": post(it, f"Content-Length: +{len(report)}", body=report),
        "length in hexadecimal": post(it, "Content-Length: 0x10", body=report),
        "endless length": post(it, "Content-Length: " + "9" * 40, body=report),
        "no length": post(it, body=report),
        "bare line feeds": post(it, size, body=report).replace(b"\r\n", b"\n", 3),
        "space before the colon": post(it, size.replace(":", " :"), body=report),
        "folded header": post(it, size, "X: a\r\n b", body=report),
        "zero byte in a header": post(it, size, "X: a\0b", body=report),
        "HTTP/2.0": post(it, size, body=report, version="HTTP/2.0"),
        "HTTP/1.2": post(it, size, body=report, version="HTTP/1.2"),
        "HTTP/0.9": b"GET /\r\n\r\n",
        "expectation": post(it, size, "Expect: miracles", body=report),
        "a long header": post(it, size, "X: " + "a" * 70_000, body=report),
        "many headers": post(it, size, *[f"X-{n}: 1" for n in range(2_000)], body=report),
        "a long path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "two hosts": post(it, "Host: y", size, body=report),
        "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
        "noise": bytes(range(256)) * 4,
    }


async def test_doubtful_requests_are_refused(one: Door) -> None:
    """Each is answered 4xx once or cut; nothing is stored, nothing smuggled, nothing echoed."""
    before = await one.contents()
    for name, request in corpus(one).items():
        answer = await raw(one.node, request, seconds=PATIENCE_S)
        found = statuses(answer)
        assert len(found) <= 1, name
        assert all(400 <= status < 500 for status in found), (name, answer)
        assert b"smuggled" not in answer, name
        assert b"aaaa" not in answer, name
        assert b"miracles" not in answer, name
        if found:
            assert b"application/problem+json" in answer, name
        assert await one.contents() == before, name


@pytest.mark.parametrize(
    "header, expected",
    [
        ("Transfer-Encoding: chunked", "length_required"),
        ("X: no length", "length_required"),
        ("Content-Length: 1", "bad_length"),
        ("Content-Length: 99999999999", "bad_length"),
    ],
)
async def test_length_is_judged_before_the_body(one: Door, header: str, expected: str) -> None:
    """The refusal comes although not one byte of the body was sent."""
    answer = await raw(one.node, post(one, header), seconds=PATIENCE_S)
    assert token(answer) == expected


async def test_continue_is_said_only_to_a_welcome_body(one: Door) -> None:
    """`Expect: 100-continue` is answered after the length was judged, not before."""
    report = plain_report(one.d, 1).encode()
    expect = "Expect: 100-continue"
    refused = await raw(one.node, post(one, expect, "Content-Length: 7"), seconds=PATIENCE_S)
    assert statuses(refused) == [400]
    reader, writer = await asyncio.open_connection("127.0.0.1", one.node.public_port)
    writer.write(post(one, expect, f"Content-Length: {len(report)}"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(report)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_pipelined_requests_are_answered_in_order(one: Door) -> None:
    """Several requests in one packet are several answers."""
    report = plain_report(one.d, 1).encode()
    size = f"Content-Length: {len(report)}"
    last = post(one, size, "Connection: close", body=report)
    answer = await raw(one.node, post(one, size, body=report) * 3 + last, seconds=PATIENCE_S)
    assert statuses(answer) == [201, 200, 200, 200]


async def dribble(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Sends a byte every 50 ms until the other side has enough."""
    with contextlib.suppress(ConnectionError):
        for byte in data * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("case", ["silent", "half a header", "dripping header", "no body", "drip"])
async def test_slow_clients_are_cut(one: Door, case: str) -> None:
    """Whatever does not arrive in time holds no connection, and fast clients do not notice."""
    size = f"Content-Length: {one.d.report_bytes}"
    start = {
        "silent": b"",
        "half a header": b"POST /v1/rou",
        "dripping header": b"POST ",
        "no body": post(one, size),
        "drip": post(one, size),
    }[case]
    reader, writer = await asyncio.open_connection("127.0.0.1", one.node.public_port)
    writer.write(start)
    dripping = None
    if "drip" in case:
        dripping = asyncio.create_task(dribble(writer, b"A" if "header" in case else b"\x01"))
    assert await one.send(1) == 201
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    finally:
        if dripping is not None:
            dripping.cancel()
        writer.close()
    if case in ("no body", "drip"):
        assert token(answer) == "request_timeout"
    else:
        assert answer == b""
    assert (await one.node.store.status(one.layout.lanes[0])).count == 1


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a report, then nothing: there is nobody to answer, and nothing that operators see."""
    with caplog.at_level("INFO"):
        async with door(tmp_path, MemoryStore()) as it:
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
                writer.write(post(it, f"Content-Length: {it.d.report_bytes}", body=b"x" * 50))
                await asyncio.sleep(0.1)
                writer.transport.abort()
            await asyncio.sleep(0.2)
            assert it.node.ingest.waiting_reports == 0
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_idle_connection_is_cut_later(one: Door) -> None:
    """After an answer a connection may idle for the keep-alive time, and no longer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", one.node.public_port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        assert statuses(await reader.read()) == [200]
    writer.close()


async def test_a_second_request_has_a_deadline_too(one: Door) -> None:
    """A connection that was served once cannot be held by dripping the next header."""
    reader, writer = await asyncio.open_connection("127.0.0.1", one.node.public_port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET ")
    dripping = asyncio.create_task(dribble(writer, b"/"))
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE_S):
            assert statuses(await reader.read()) == [200]
    dripping.cancel()
    writer.close()


async def test_control_without_the_sweeper_slow_clients_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the sweeper off, a connection that sends nothing useful outlives its deadline."""

    async def asleep(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Sweeper, "run", asleep)
    async with door(tmp_path, MemoryStore(), limits=SHORT | {"keepalive_s": 60}) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
        writer.write(b"POST /v1/rou")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * SHORT["header_s"]):
                await reader.read()
        writer.close()


async def test_who_does_not_read_is_cut(tmp_path: Path) -> None:
    """A client that asks for something large and never reads it does not hold it for ever."""
    limits = SHORT | {"request_s": 0.5}
    async with door(tmp_path, MemoryStore(), limits=limits) as it:
        await it.node.database.run(partial(large_release, round_id=it.d.round_id))
        path = f"/v1/releases/{it.d.round_id.hex()}"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", it.node.public_port, limit=2**16
        )
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not it.node.runner.connections:
                break
        assert it.node.runner.connections == 0
        assert it.node.runner.counters.swept == 1
        writer.transport.abort()


def large_release(connection: sqlite3.Connection, round_id: bytes) -> None:
    """Puts 32 MiB where a release would be: more than any socket takes without a reader."""
    connection.execute(
        "INSERT INTO releases (round, artefact, summary, reports, at) VALUES (?, ?, '{}', 0, 0)",
        (round_id, bytes(2**25)),
    )


async def test_connections_are_bounded(tmp_path: Path) -> None:
    """The one beyond the limit is cut at once; when one ends, another may come."""
    limits = SHORT | {"connections_max": 3, "header_s": 30, "keepalive_s": 30}
    async with door(tmp_path, MemoryStore(), limits=limits) as it:
        held = [await asyncio.open_connection("127.0.0.1", it.node.public_port) for _ in range(3)]
        await asyncio.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            assert await raw(it.node, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        held[0][1].close()
        await asyncio.sleep(0.1)
        closing = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert statuses(await raw(it.node, closing)) == [200]
        for _, writer in held[1:]:
            writer.close()


async def test_unknown_paths_and_methods_are_problems(one: Door) -> None:
    """404 and 405 are problem documents too, and 405 says what is allowed."""
    for method, path, status in [("GET", "/nothing", 404), ("PUT", "/v1/rounds", 405)]:
        async with one.session.request(method, one.node.public_url + path) as response:
            assert response.status == status
            assert response.content_type == "application/problem+json"
            assert ("Allow" in response.headers) == (status == 405)


async def test_pages_of_listed_origins_may_call(tmp_path: Path) -> None:
    """A listed origin gets its preflight and may read the answer; others get nothing."""
    origins = ["https://shop.example"]
    async with door(tmp_path, MemoryStore(), allowed_origins=origins) as it:
        for origin, allowed in [("https://shop.example", True), ("https://evil.example", False)]:
            headers = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type",
            }
            url = it.node.public_url + it.path
            async with it.session.options(url, headers=headers) as response:
                assert (response.status == 204) == allowed
                assert ("Access-Control-Allow-Origin" in response.headers) == allowed
                assert "Access-Control-Allow-Credentials" not in response.headers
            async with it.session.post(url, headers={"Origin": origin}) as response:
                assert response.headers["Vary"] == "Origin"
                assert ("Access-Control-Allow-Origin" in response.headers) == allowed


def test_what_is_relied_on_exists() -> None:
    """The private parts of aiohttp that the guard uses, and its C parser, are there."""
    assert "_request_in_progress" in RequestHandler.__slots__
    assert "_request_count" in RequestHandler.__slots__
    parser = aiohttp.http_parser.HttpRequestParser
    assert parser is not aiohttp.http_parser.HttpRequestParserPy


def test_the_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most smuggling bugs were in the parser written in Python: no service starts with it."""
    python = aiohttp.http_parser.HttpRequestParserPy
    monkeypatch.setattr(aiohttp.http_parser, "HttpRequestParser", python)
    with pytest.raises(RuntimeError, match="C parser"):
        Runner(aiohttp.web.Application(), Limits(), fault)
