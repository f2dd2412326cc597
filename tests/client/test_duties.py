"""The client's duties in their order, each round answered once (docs/protocol.md 14)."""

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from client_py.client import Patience, SyncClient
from client_py.config import Policy
from client_py.receipts import Outcome
from client_py.sqlite_store import SqliteStore
from client_py.store import Allowance, Charge, MemoryStore, Pending
from client_py.transport import Reply
from dandelion.queries.measures import Row
from tests.client.builders import NOW, ROWS, Clock, Deployment, FakeTransport, make_client

HOME = Deployment()
ROUND = HOME.descriptor()
COST = ROUND.rho_units


class Watched(MemoryStore):
    """A store that writes down in which order it is used."""

    __slots__ = ("log",)

    def __init__(self, log: list[str]) -> None:
        super().__init__(ROWS)
        self.log = log

    def rows(self, event: str) -> Sequence[Row]:
        self.log.append("rows")
        return super().rows(event)

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        self.log.append("coin")
        return super().coin(ctx, expires, toss)

    def commit(
        self, charge: Charge, allowance: Allowance, make: Callable[[], Pending]
    ) -> Pending | None:
        self.log.append("charge")

        def masking() -> Pending:
            self.log.append("mask")
            return make()

        pending = super().commit(charge, allowance, masking)
        self.log.append("stored")
        return pending


async def test_the_duties_come_in_order() -> None:
    """Coin before data, data before the charge, the charge before the mask, all before sending."""
    log: list[str] = []
    transport = FakeTransport()
    transport.on_post = lambda: log.append("send")
    client = make_client(transport, store=Watched(log), policy=Policy(participation=0.999999))
    await client.contribute([HOME.round()])
    assert log == ["coin", "rows", "charge", "mask", "stored", "send"]


async def test_a_refused_round_touches_no_data() -> None:
    """Pins and floors are judged before events are read or a coin is tossed."""
    log: list[str] = []
    client = make_client(FakeTransport(), store=Watched(log))
    await client.contribute([HOME.round(cohort_min=1)])
    assert log == []


async def test_a_round_is_answered_once() -> None:
    """Calling again makes no second report for it, and charges nothing."""
    store = MemoryStore(ROWS)
    transport = FakeTransport()
    client = make_client(transport, store=store)
    await client.contribute([HOME.round()])
    assert await client.contribute([HOME.round(), HOME.round()]) == []
    assert len(transport.bodies) == 1
    assert store.spent(HOME.config().endpoint, 0) == COST


async def test_a_round_that_was_answered_is_not_judged_again() -> None:
    """Listed once more after its end, it is not refused as closed: it was answered."""
    clock = Clock()
    client = make_client(FakeTransport(), clock=clock)
    await client.contribute([HOME.round()])
    clock.now = ROUND.closes + 301
    assert await client.contribute([HOME.round()]) == []
    (receipt,) = await client.contribute([HOME.round(2)])
    assert receipt.token == "round_closed"


@pytest.mark.parametrize(
    "changes, token",
    [
        ({"opens": NOW + 301, "closes": NOW + 600}, "not_open"),
        ({"opens": NOW - 900, "closes": NOW - 300}, "round_closed"),
    ],
)
async def test_a_round_of_another_time_is_not_answered(changes: dict[str, int], token: str) -> None:
    """Nothing is charged for a round that cannot be open."""
    transport, store = FakeTransport(), MemoryStore(ROWS)
    (receipt,) = await make_client(transport, store=store).contribute([HOME.round(**changes)])
    assert (receipt.outcome, receipt.token) == (Outcome.REFUSED, token)
    assert not transport.bodies
    assert store.spent(HOME.config().endpoint, 0) == 0


@pytest.mark.parametrize(
    "changes",
    [{"opens": NOW + 300, "closes": NOW + 600}, {"opens": NOW - 900, "closes": NOW - 299}],
)
async def test_a_clock_may_be_five_minutes_off(changes: dict[str, int]) -> None:
    """The collector's clock decides; the client's own only keeps it from the absurd."""
    (receipt,) = await make_client(FakeTransport()).contribute([HOME.round(**changes)])
    assert receipt.outcome is Outcome.ACCEPTED


def listing(round_id: bytes, envelope: bytes) -> Reply:
    """A list of one round."""
    entry = {"round": round_id.hex(), "envelope": base64.b64encode(envelope).decode()}
    return Reply(200, json.dumps({"now": NOW, "rounds": [entry]}).encode())


async def test_another_descriptor_under_the_same_id_gets_nothing() -> None:
    """A round id is the start of ctx; an envelope listed under another is not that round."""
    transport = FakeTransport(listing=listing(ROUND.round_id, HOME.round(2)))
    (receipt,) = await make_client(transport).contribute()
    assert (receipt.outcome, receipt.token) == (Outcome.REFUSED, "wrong_round")
    assert not transport.bodies


async def test_a_descriptor_under_its_own_id_is_answered() -> None:
    """The control: the same envelope, listed as what it is."""
    transport = FakeTransport(listing=listing(HOME.descriptor(2).round_id, HOME.round(2)))
    (receipt,) = await make_client(transport).contribute()
    assert receipt.outcome is Outcome.ACCEPTED


async def test_calls_at_the_same_time_wait_for_each_other() -> None:
    """Two tasks, one client: one report."""
    transport = FakeTransport()
    client = make_client(transport)
    await asyncio.gather(*(client.contribute([HOME.round()]) for _ in range(5)))
    assert len(transport.bodies) == 1


async def test_two_processes_with_one_file_make_one_report(tmp_path: Path) -> None:
    """The charge is unique in the file, so whoever comes second makes nothing."""
    transport = FakeTransport()
    path = tmp_path / "client"
    with SqliteStore(path) as one, SqliteStore(path) as two:
        first = make_client(transport, store=one)
        second = make_client(transport, store=two)
        monkey = two.known
        two.known = lambda ctx: False  # type: ignore[method-assign]
        await first.contribute([HOME.round()])
        assert await second.contribute([HOME.round()]) == []
        two.known = monkey  # type: ignore[method-assign]
    assert len(transport.bodies) == 1


def test_the_synchronous_client_says_when_nobody_answers() -> None:
    """Without an event loop, and without a collector."""
    client = SyncClient(
        HOME.config("http://127.0.0.1:9"),
        Policy(),
        MemoryStore(ROWS),
        patience=Patience(attempts=1, step_s=0),
    )
    (receipt,) = client.contribute()
    assert receipt.outcome is Outcome.UNREACHABLE
