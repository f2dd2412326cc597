"""What a report may hear, and that a refused one has changed nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.store import CommitResult, LanePhase, MemoryStore, RoundStore
from dandelion.params import WINDOW_HEADER
from dandelion.round import Phase
from tests.collector.builders import FaultyStore, descriptor_for, plain_report
from tests.collector.door import Door, door, round_for
from tests.oracle_membership import assert_exactly_once


@pytest.fixture
async def it(tmp_path: Path, store: RoundStore) -> AsyncIterator[Door]:
    """A door over each kind of store."""
    async with door(tmp_path, store) as opened:
        yield opened


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Door]:
    """A door over a store in memory."""
    async with door(tmp_path, MemoryStore()) as opened:
        yield opened


async def test_first_and_same_again(it: Door) -> None:
    """201 the first time, 200 for the same bytes; both say so in JSON and name a window."""
    body = plain_report(it.d, 1).encode()
    status, answer, headers = await it.post(body)
    assert (status, answer) == (201, {"result": "accepted"})
    assert (await it.post(body))[:2] == (200, {"result": "duplicate"})
    start, end = map(int, headers[WINDOW_HEADER].split())
    assert start < end
    assert_exactly_once(await it.sums(), [1])


async def test_a_safelisted_media_type_is_taken(it: Door) -> None:
    """A page that is leaving sends text/plain, which needs no preflight."""
    body = plain_report(it.d, 1).encode()
    assert (await it.post(body, Content_Type="text/plain;charset=UTF-8"))[0] == 201


WRONG_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "bad_length: short": lambda body: body[:-1],
    "bad_length: long": lambda body: body + b"\0",
    "bad_length: empty": lambda body: b"",
    "bad_version": lambda body: b"\x02" + body[1:],
    "wrong_round": lambda body: body[:1] + bytes(16) + body[17:],
    "bad_key: zero": lambda body: body[:17] + bytes(32) + body[49:],
    "bad_key: top bit": lambda body: body[:17] + b"\x01" + bytes(30) + b"\x80" + body[49:],
    "bad_key: p": lambda body: body[:17] + b"\xed" + b"\xff" * 30 + b"\x7f" + body[49:],
}


@pytest.mark.parametrize("case", WRONG_BODIES)
async def test_wrong_bytes_change_nothing(one: Door, case: str) -> None:
    """Each fault has its token, and the store is as it was."""
    await one.send(1)
    before = await one.contents()
    body = WRONG_BODIES[case](plain_report(one.d, 2).encode())
    assert await one.token_of(body) == case.partition(":")[0]
    assert await one.contents() == before


WRONG_HEADERS = {
    "encoding_refused": {"Content_Encoding": "gzip"},
    "media_type": {"Content_Type": "application/json"},
    "bad_request": {"Sec_Fetch_Mode": "navigate"},
}


@pytest.mark.parametrize("token", WRONG_HEADERS)
async def test_wrong_headers_change_nothing(one: Door, token: str) -> None:
    """A content coding, another media type, or a navigation is refused."""
    before = await one.contents()
    body = plain_report(one.d, 1).encode()
    assert await one.token_of(body, **WRONG_HEADERS[token]) == token
    assert await one.contents() == before


@pytest.mark.parametrize("name", ["0" * 32, "0" * 31, "F" * 32, "x", "0" * 64])
async def test_unknown_rounds(one: Door, name: str) -> None:
    """An id that is none, or that no round has, is `unknown_round`."""
    body = plain_report(one.d, 1).encode()
    assert await one.token_of(body, f"/v1/rounds/{name}/reports") == "unknown_round"
    async with one.session.get(f"{one.node.public_url}/v1/rounds/{name}") as response:
        assert response.status == 404


async def test_a_conflicting_report_is_refused(it: Door) -> None:
    """Another payload under a key that was accepted: the first stays."""
    report = plain_report(it.d, 1)
    await it.post(report.encode())
    before = await it.contents()
    other = replace(report, payload=plain_report(it.d, 2).payload)
    assert await it.token_of(other.encode()) == "report_conflict"
    assert await it.contents() == before


async def test_a_thousand_copies_count_once(it: Door) -> None:
    """All at once over HTTP: one 201, the others 200, one vector in the sum."""
    statuses = await asyncio.gather(*(it.send(5) for _ in range(1_000)))
    assert sorted(statuses) == [200] * 999 + [201]
    assert_exactly_once(await it.sums(), [5])


async def test_before_and_after_its_time(one: Door) -> None:
    """`not_open` before `opens`; from `closes` on nothing is taken, finally so from the seal on."""
    d = one.d
    await one.put(round_for(replace(d, opens=d.opens + 100)))
    assert await one.token_of(plain_report(one.d, 1).encode()) == "not_open"
    await one.put(round_for(replace(d, opens=d.opens - 20, closes=d.opens - 10)))
    assert await one.token_of(plain_report(one.d, 1).encode()) == "store_unavailable"
    await one.node.store.step(one.layout.lanes[0], LanePhase.SEALED)
    assert await one.token_of(plain_report(one.d, 1).encode()) == "round_closed"
    assert (await one.node.store.status(one.layout.lanes[0])).count == 0


@pytest.mark.parametrize(
    "phase", [Phase.CLOSING, Phase.SEALED, Phase.RELEASED, Phase.ABANDONED], ids=str
)
async def test_a_committed_report_is_known_in_every_phase(it: Door, phase: Phase) -> None:
    """200 for what is in, 409 for another payload and from the seal on for what is not in."""
    report = plain_report(it.d, 1)
    await it.post(report.encode())
    await it.move(phase, LanePhase.CLOSING if phase is Phase.CLOSING else LanePhase.SEALED)
    before = await it.contents()
    assert (await it.post(report.encode()))[:2] == (200, {"result": "duplicate"})
    other = replace(report, payload=plain_report(it.d, 2).payload)
    assert await it.token_of(other.encode()) == "report_conflict"
    late = "store_unavailable" if phase is Phase.CLOSING else "round_closed"
    assert await it.token_of(plain_report(it.d, 2).encode()) == late
    assert await it.contents() == before


async def test_a_copy_waits_for_what_is_under_way(tmp_path: Path) -> None:
    """The round closes while a commit is under way: its copy hears what becomes of it, not 409."""
    store = FaultyStore()
    async with door(tmp_path, store) as it:
        store.blocked = True
        first = asyncio.create_task(it.send(1))
        await asyncio.sleep(0.05)
        await it.move(Phase.CLOSING, LanePhase.CLOSING)
        copy = asyncio.create_task(it.send(1))
        await asyncio.sleep(0.05)
        assert not copy.done()
        assert await it.send(2) == 503
        store.blocked = False
        assert (await first, await copy) == (201, 200)


async def test_a_damaged_round_says_so(one: Door) -> None:
    """Nobody is told that a lost round has taken a report."""
    await one.move(Phase.DAMAGED)
    assert await one.token_of(plain_report(one.d, 1).encode()) == "round_damaged"


async def test_a_round_that_the_store_lost_is_not_unknown(one: Door) -> None:
    """A client of a round that the list forgot is told to come again, not that there is none."""
    await one.node.store.withdraw(one.d.round_id)
    await one.node.book.refresh()
    assert await one.token_of(plain_report(one.d, 1).encode()) == "store_unavailable"


async def test_a_purged_round_is_closed(one: Door) -> None:
    """After the purge nobody knows what was in; what comes is refused as closed."""
    await one.move(Phase.RELEASED)
    await one.node.database.run(lambda connection: connection.execute("UPDATE rounds SET purged=1"))
    await one.node.store.withdraw(one.d.round_id)
    await one.node.book.refresh()
    assert await one.token_of(plain_report(one.d, 1).encode()) == "round_closed"


async def test_a_client_that_hangs_up_is_counted_once(it: Door) -> None:
    """The report of a client that leaves before the answer is in, and its retry is a duplicate."""
    body = plain_report(it.d, 3).encode()
    head = f"POST {it.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    writer.write(f"{head}Content-Type: text/plain\r\n\r\n".encode() + body)
    await writer.drain()
    writer.transport.abort()
    for _ in range(200):
        if (await it.node.store.status(it.layout.lanes[0])).count:
            break
        await asyncio.sleep(0.01)
    assert await it.send(3) == 200
    assert_exactly_once(await it.sums(), [3])


async def test_headers_of_every_answer(one: Door) -> None:
    """No version of any software, no guessing of types, and copies only of what never changes."""
    for path in ("/v1/rounds", "/livez", "/nothing"):
        async with one.session.get(one.node.public_url + path) as response:
            assert response.headers["Server"] == "dandelion"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"


async def test_a_fault_of_ours_does_not_end_a_lane(
    one: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A committer that dies of a bug is replaced; who was waiting is told to come again."""
    real = one.node.store.commit
    calls = []

    async def broken(*args: Any) -> CommitResult:
        calls.append(args)
        if len(calls) == 1:
            raise ZeroDivisionError
        return await real(*args)

    monkeypatch.setattr(one.node.store, "commit", broken)
    assert await one.send(1) == 503
    assert await one.send(1) == 201
    assert_exactly_once(await one.sums(), [1])


async def test_a_full_queue_is_refused_before_the_body(tmp_path: Path) -> None:
    """Beyond the bounds: `overloaded` with Retry-After, although the body never came."""
    store = FaultyStore()
    limits = {"waiting_reports_max": 3, "answer_s": 5}
    async with door(tmp_path, store, limits=limits) as it:
        store.blocked = True
        waiting = [asyncio.create_task(it.send(client)) for client in range(3)]
        await asyncio.sleep(0.05)
        head = f"POST {it.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {it.d.report_bytes}\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
        writer.write(f"{head}Content-Type: text/plain\r\n\r\n".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        assert "503" in answer.splitlines()[0]
        assert "Retry-After: " in answer
        store.blocked = False
        assert await asyncio.gather(*waiting) == [201] * 3
        assert await it.send(4) == 201


async def test_bytes_are_bounded_as_well(tmp_path: Path) -> None:
    """Few large reports fill the queue as many small ones do."""
    store = FaultyStore()
    size = descriptor_for().report_bytes
    async with door(tmp_path, store, limits={"waiting_bytes_max": 2 * size}) as it:
        store.blocked = True
        waiting = [asyncio.create_task(it.send(client)) for client in range(2)]
        await asyncio.sleep(0.05)
        assert await it.token_of(plain_report(it.d, 3).encode()) == "overloaded"
        store.blocked = False
        assert await asyncio.gather(*waiting) == [201, 201]


async def test_without_a_store_nothing_is_acknowledged(tmp_path: Path) -> None:
    """A store that is away: 503, never an ack; when it returns the same bytes are accepted."""
    store = FaultyStore()
    async with door(tmp_path, store, limits={"answer_s": 0.2}) as it:
        store.blocked = True
        body = plain_report(it.d, 1).encode()
        status, answer, headers = await it.post(body)
        assert (status, answer["type"]) == (503, "urn:dandelion:problem:store_unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert (await store.status(it.layout.lanes[0])).count == 0
        store.blocked = False
        for _ in range(100):
            if (await it.post(body))[0] in (200, 201):
                break
            await asyncio.sleep(0.05)
        assert await it.send(1) == 200
        assert_exactly_once(await it.sums(), [1])


class Mutation:
    """Changes to an encoded report, as data."""

    bodies = st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 400), st.integers(1, 255)),
        st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
        st.tuples(st.just("grow"), st.integers(1, 300), st.integers(0, 255)),
        st.tuples(st.just("zero"), st.integers(0, 300), st.integers(1, 64)),
        st.tuples(st.just("swap"), st.integers(0, 300), st.integers(1, 48)),
    )

    @staticmethod
    def apply(body: bytes, change: tuple[str, int, int]) -> bytes:
        """The changed body."""
        kind, at, amount = change
        at = min(at, len(body) - 1)
        match kind:
            case "flip":
                return body[:at] + bytes([body[at] ^ amount]) + body[at + 1 :]
            case "cut":
                return body[:at]
            case "grow":
                return body + bytes([amount]) * at
            case "zero":
                return body[:at] + bytes(len(body[at : at + amount])) + body[at + amount :]
            case _:
                part = body[at : at + amount]
                return body[:at] + part[::-1] + body[at + amount :]


async def test_mutated_reports(one: Door) -> None:
    """However a body is changed: never a 5xx, and a refusal has changed nothing."""
    honest = plain_report(one.d, 7).encode()
    assert (await one.post(honest))[0] == 201
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(changes=st.lists(Mutation.bodies, min_size=1, max_size=3))
    def mutate(changes: list[tuple[str, int, int]]) -> None:
        body = honest
        for change in changes:
            body = Mutation.apply(body, change) or honest
        asyncio.run_coroutine_threadsafe(judge(body), loop).result(20)

    async def judge(body: bytes) -> None:
        before = await one.contents()
        status, answer, _ = await one.post(body)
        after = await one.contents()
        assert status in (200, 201, 400, 409), answer
        # One report more, or nothing at all.
        assert (after == before) == (status != 201)
        if body == honest:
            assert status == 200

    await asyncio.to_thread(mutate)
