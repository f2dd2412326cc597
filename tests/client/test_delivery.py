"""Sending until an answer is final: the same bytes, patiently (docs/protocol.md section 14)."""

import json
import random
from pathlib import Path

import pytest

from client_py.client import Patience
from client_py.receipts import Outcome
from client_py.sqlite_store import SqliteStore
from client_py.store import MemoryStore
from client_py.transport import Backoff, Reply, TransportError, judge, visit
from dandelion.errors import TOKENS, problem
from dandelion.params import MEDIA_PROBLEM
from tests.client.builders import NOW, ROWS, Clock, Deployment, FakeTransport, make_client

HOME = Deployment()
LOST = TransportError("the answer was lost")


def refusal(token: str, retry_after: int | None = None) -> Reply:
    """The problem document of a token."""
    body = json.dumps(problem(token)).encode()
    return Reply(TOKENS[token].status, body, MEDIA_PROBLEM, retry_after)


async def test_a_retry_is_the_same_bytes() -> None:
    """Lost answers, overload, success: three sends of one report."""
    transport = FakeTransport(LOST, refusal("overloaded"), Reply(201))
    (receipt,) = await make_client(transport).contribute([HOME.round()])
    assert (receipt.outcome, receipt.attempts) == (Outcome.ACCEPTED, 3)
    assert len(transport.bodies) == 3
    assert len(set(transport.bodies)) == 1


async def test_a_retry_after_a_restart_is_the_same_bytes(tmp_path: Path) -> None:
    """The process ends between two sends; the body waits in the file."""
    transport = FakeTransport(LOST)
    with SqliteStore(tmp_path / "client") as store:
        (waiting,) = await make_client(transport, store=store).contribute([HOME.round()])
    assert waiting.outcome is Outcome.WAITING
    again = FakeTransport(Reply(200, b'{"result":"duplicate"}'))
    with SqliteStore(tmp_path / "client") as store:
        client = make_client(again, store=store, clock=Clock(NOW + 600))
        (receipt,) = await client.contribute([HOME.round()])
        assert store.pending(HOME.config().endpoint) == []
    assert receipt.outcome is Outcome.DUPLICATE
    assert again.bodies[0] == transport.bodies[0]


async def test_a_client_that_forgot_would_send_other_bytes(tmp_path: Path) -> None:
    """The control: without the stored body the second report has another key, and counts twice."""
    transport = FakeTransport(LOST)
    await make_client(transport, store=MemoryStore(ROWS)).contribute([HOME.round()])
    await make_client(transport, store=MemoryStore(ROWS)).contribute([HOME.round()])
    assert len(set(transport.bodies)) == 2


@pytest.mark.parametrize(
    "token", ["round_closed", "unknown_round", "report_conflict", "bad_length", "forbidden"]
)
async def test_a_final_refusal_ends_it(token: str) -> None:
    """Sent once; the body is dropped, the receipt says why."""
    transport, store = FakeTransport(refusal(token)), MemoryStore(ROWS)
    client = make_client(transport, store=store)
    (receipt,) = await client.contribute([HOME.round()])
    assert (receipt.outcome, receipt.token) == (Outcome.REJECTED, token)
    assert store.pending(HOME.config().endpoint) == []
    assert await client.contribute([HOME.round()]) == []
    assert len(transport.bodies) == 1


@pytest.mark.parametrize(
    "token",
    ["overloaded", "draining", "store_unavailable", "internal", "not_open", "too_many_keys"],
)
async def test_a_passing_refusal_leaves_the_report_waiting(token: str) -> None:
    """After a few attempts it stays in the store for the next call."""
    transport, store = FakeTransport(refusal(token)), MemoryStore(ROWS)
    clock = Clock()
    client = make_client(transport, store=store, clock=clock)
    (receipt,) = await client.contribute([HOME.round()])
    assert (receipt.outcome, receipt.token, receipt.attempts) == (Outcome.WAITING, token, 4)
    clock.now += 120
    transport._script = [Reply(201)]
    (receipt,) = await client.contribute([])
    assert (receipt.outcome, receipt.attempts) == (Outcome.ACCEPTED, 5)
    assert len(set(transport.bodies)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Reply(404, b"<h1>Not Found</h1>", "text/html"),
        Reply(409, b"not json", MEDIA_PROBLEM),
        Reply(409, b"[" * 100_000, MEDIA_PROBLEM),
        Reply(409, b'{"type":"urn:dandelion:problem:nonsense"}', MEDIA_PROBLEM),
        Reply(409, b'{"type":"urn:dandelion:problem:forbidden"}', MEDIA_PROBLEM),
        Reply(409, json.dumps(problem("round_closed")).encode(), "application/json"),
        Reply(409, b'{"type":7}', MEDIA_PROBLEM),
        Reply(200, b"<html>welcome to our wireless network</html>", "text/html"),
        Reply(200, b'{"result":"accepted"}', "application/json"),
        Reply(204),
        Reply(700),
    ],
)
def test_only_an_answer_that_the_text_describes_is_final(answer: Reply) -> None:
    """A proxy's page, or a token under another status, proves nothing."""
    assert judge(answer).outcome is Outcome.WAITING


async def test_a_report_is_dropped_when_its_round_is_over() -> None:
    """From `expires` on nobody could use it; the body is deleted and the receipt says lapsed."""
    clock, store = Clock(), MemoryStore(ROWS)
    transport = FakeTransport(LOST)
    client = make_client(transport, store=store, clock=clock)
    await client.contribute([HOME.round()])
    clock.now = NOW + 7_000
    await client.contribute([])
    sent = len(transport.bodies)
    assert sent > 4
    clock.now = NOW + 7_200
    (receipt,) = await client.contribute([])
    assert receipt.outcome is Outcome.LAPSED
    assert store.pending(HOME.config().endpoint) == []
    assert len(transport.bodies) == sent


async def test_retry_after_is_the_least_wait() -> None:
    """Jitter comes on top, so that not everybody returns in the same second."""
    clock = Clock()
    transport = FakeTransport(refusal("overloaded", 30), refusal("overloaded", 30), Reply(201))
    await make_client(transport, clock=clock).contribute([HOME.round()])
    assert len(clock.slept) == 2
    assert all(30 <= wait <= 32 for wait in clock.slept)
    assert clock.slept[0] != clock.slept[1]


async def test_a_long_retry_after_is_kept_without_waiting_for_it() -> None:
    """The call returns at once; the next call before that time leaves the collector alone."""
    clock = Clock()
    transport = FakeTransport(refusal("draining", 1_000), Reply(201))
    client = make_client(transport, clock=clock, store=MemoryStore(ROWS))
    (receipt,) = await client.contribute([HOME.round()])
    assert (receipt.outcome, clock.slept) == (Outcome.WAITING, [])
    clock.now += 999
    assert await client.contribute([]) == []
    clock.now += 5
    (receipt,) = await client.contribute([])
    assert receipt.outcome is Outcome.ACCEPTED


def test_back_off_doubles_its_bound_and_is_random_below_it() -> None:
    """Uniform between 0 and 1, 2, 4 ... 60 seconds."""
    rng = random.Random(5)
    backoff = Backoff(rng)
    for attempt, bound in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (500, 60)]:
        waits = [backoff.wait(attempt, None) for _ in range(2_000)]
        assert 0 <= min(waits) < 0.05 * bound
        assert 0.95 * bound < max(waits) <= bound
        assert abs(sum(waits) / len(waits) - bound / 2) < 0.05 * bound


def test_a_hostile_retry_after_cannot_silence_a_client_for_ever() -> None:
    """A day is the most."""
    assert Backoff(random.Random(1)).wait(1, 10**9) <= 86_401


async def test_the_window_says_when_to_ask_again() -> None:
    """Until the drawn moment no request is made; afterwards one is."""
    clock = Clock()
    listing = Reply(200, b'{"rounds":[]}', window=(NOW + 100, NOW + 200))
    transport = FakeTransport(listing=listing)
    client = make_client(transport, clock=clock)
    await client.contribute()
    assert transport.listings == 1
    at = client.store.next_visit(HOME.config().endpoint)
    assert NOW + 100 <= at <= NOW + 200
    clock.now = at - 1
    await client.contribute()
    assert transport.listings == 1
    await client.contribute(early=True)
    assert transport.listings == 2
    clock.now = client.store.next_visit(HOME.config().endpoint)
    await client.contribute()
    assert transport.listings == 3


def test_visits_are_spread_evenly_over_the_window() -> None:
    """Peak over mean below 1.25 in ten tenths: many clients that restart at once spread out."""
    rng = random.Random(3)
    tenths = [0] * 10
    for _ in range(50_000):
        tenths[min(9, (visit((NOW, NOW + 1_000), NOW, rng) - NOW) // 100)] += 1
    assert max(tenths) / 5_000 < 1.25


@pytest.mark.parametrize("window", [(0, 5), (NOW - 50, NOW - 10), (2**40, 2**41)])
def test_a_window_that_makes_no_sense_is_bounded(window: tuple[int, int]) -> None:
    """Neither in the past nor more than a day away."""
    assert NOW <= visit(window, NOW, random.Random(1)) <= NOW + 86_400


async def test_a_list_that_cannot_be_had_is_tried_again_then_reported() -> None:
    """Four attempts with growing waits, then a receipt that says so."""
    clock = Clock()
    transport = FakeTransport(listing=Reply(503))
    (receipt,) = await make_client(transport, clock=clock).contribute()
    assert (receipt.outcome, receipt.detail) == (Outcome.UNREACHABLE, "status 503")
    assert transport.listings == 4
    assert len(clock.slept) == 3


async def test_patience_is_the_callers() -> None:
    """One attempt, no sleep."""
    clock = Clock()
    transport = FakeTransport(LOST)
    client = make_client(transport, clock=clock, patience=Patience(attempts=1, step_s=0))
    await client.contribute([HOME.round()])
    assert len(transport.bodies) == 1
    assert clock.slept == []
