"""The client's duties in their order (docs/protocol.md 14), and what breaks without them."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from client_py import store as store_module
from client_py.client import Patience, SyncClient
from client_py.config import Policy
from client_py.receipts import Outcome
from client_py.sqlite_store import SqliteStore
from client_py.store import Allowance, Charge, ClientStore, MemoryStore, Pending
from client_py.transport import Reply, TransportError
from dandelion.descriptor import Descriptor
from dandelion.encoding import canonical_json
from dandelion.errors import problem
from dandelion.params import MEDIA_PROBLEM
from dandelion.queries.measures import Row
from dandelion.queries.plan import Plan
from dandelion.schemes import oneshot
from tests.client.builders import (
    NOW,
    ROWS,
    Clock,
    Deployment,
    FakeTransport,
    make_client,
    plan_of,
    unmasked,
)

HOME = Deployment()
ROUND = HOME.descriptor()
COST = ROUND.rho_units

# Two rounds of epsilon 1 and a little more, but not three.
TWO_ROUNDS = Policy(epsilon_period=1.45)


def inside(descriptor: Descriptor, body: bytes, number: int = 1) -> list[int]:
    """The vector inside a report of the default deployment."""
    return unmasked(descriptor, body, HOME.helpers, number)


def rejection(token: str, status: int) -> Reply:
    """A final refusal."""
    return Reply(status, json.dumps(problem(token)).encode(), MEDIA_PROBLEM)


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


async def test_the_report_holds_what_the_plan_says() -> None:
    """All helpers together would see the clipped vector of the local rows."""
    transport = FakeTransport()
    await make_client(transport).contribute([HOME.round()])
    expected = plan_of(ROUND).execute(ROWS["flight"], lambda n, k: range(k))
    assert inside(ROUND, transport.bodies[0]) == expected.tolist()
    assert len(transport.bodies[0]) == ROUND.report_bytes


@pytest.mark.parametrize(
    "rows",
    [[], [{"carrier": "ZZ", "dep_delay": 1}], [{"origin": "JFK"}], [{"carrier": None}]],
)
async def test_who_takes_part_always_sends(rows: list[Row]) -> None:
    """Nothing recorded, or nothing that matches: one report of the same length, holding zeros.

    Were nothing sent, sending would be the answer.
    """
    transport = FakeTransport()
    client = make_client(transport, store=MemoryStore({"flight": rows}))
    (receipt,) = await client.contribute([HOME.round()])
    assert receipt.outcome is Outcome.ACCEPTED
    assert [len(body) for body in transport.bodies] == [ROUND.report_bytes]
    assert not any(inside(ROUND, transport.bodies[0]))


async def test_participation_does_not_depend_on_data() -> None:
    """With the same coins, clients with and without matching rows take part in the same rounds."""

    async def taken(store: MemoryStore) -> list[bool]:
        transport = FakeTransport()
        policy = Policy(participation=0.5, epsilon_period=50)
        client = make_client(transport, store=store, policy=policy, rng_seed=7)
        receipts = await client.contribute([HOME.round(number) for number in range(1, 21)])
        return [receipt.outcome.delivered for receipt in receipts]

    full, empty = await taken(MemoryStore(ROWS)), await taken(MemoryStore())
    assert full == empty
    assert {True, False} == set(full)


class Forgetful(MemoryStore):
    """A store that tosses the coin of a round again and again."""

    __slots__ = ()

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        return toss()


async def outcomes_of_twenty_calls(store: ClientStore) -> list[Outcome]:
    """The same round is offered twenty times to a client that takes part in one of two."""
    policy = Policy(participation=0.5)
    client = make_client(FakeTransport(), store=store, policy=policy, rng_seed=2)
    offered = [await client.contribute([HOME.round()]) for _ in range(20)]
    return [receipt.outcome for receipts in offered for receipt in receipts]


async def test_the_coin_of_a_round_is_tossed_once(tmp_path: Path) -> None:
    """Offering a round again does not raise the probability: what was skipped stays skipped."""
    with SqliteStore(tmp_path / "client") as store:
        assert await outcomes_of_twenty_calls(store) == [Outcome.SKIPPED] * 20
    assert await outcomes_of_twenty_calls(MemoryStore(ROWS)) == [Outcome.SKIPPED] * 20


async def test_a_coin_that_is_tossed_each_time_always_falls_in_the_end() -> None:
    """The control: forgetting the coin, the client takes part within twenty offers."""
    assert Outcome.ACCEPTED in await outcomes_of_twenty_calls(Forgetful(ROWS))


async def test_the_ledger_is_charged_before_the_first_send() -> None:
    """When the first byte leaves, rho is spent and the body is stored, whatever happens next."""
    store = MemoryStore(ROWS)
    transport = FakeTransport(TransportError("gone"))
    seen: list[tuple[int, int]] = []
    transport.on_post = lambda: seen.append(
        (
            store.spent(HOME.config().endpoint, 0),
            len(store.pending(HOME.config().endpoint)),
        )
    )
    (receipt,) = await make_client(transport, store=store).contribute([HOME.round()])
    assert receipt.outcome is Outcome.WAITING
    assert set(seen) == {(COST, 1)}
    assert store.spent(HOME.config().endpoint, 0) == COST


@pytest.mark.parametrize("status, token", [(409, "round_closed"), (500, "internal")])
async def test_no_answer_of_the_collector_refunds_anything(status: int, token: str) -> None:
    """Refused or failed: the charge stays."""
    store = MemoryStore(ROWS)
    client = make_client(FakeTransport(rejection(token, status)), store=store)
    await client.contribute([HOME.round()])
    assert store.spent(HOME.config().endpoint, 0) == COST


async def farm(policy: Policy) -> int:
    """Reports a collector gets that refuses each one and opens the next round."""
    transport = FakeTransport(rejection("round_closed", 409))
    store = MemoryStore(ROWS)
    for number in range(1, 11):
        client = make_client(transport, store=store, policy=policy)
        await client.contribute([HOME.round(number)])
    assert len(set(transport.bodies)) == len(transport.bodies)
    return len(transport.bodies)


async def test_a_refused_report_is_made_again_only_if_the_ledger_pays_again() -> None:
    """Ten rounds, ten refusals; an allowance for two gives two looks at the data, not ten."""
    assert await farm(TWO_ROUNDS) == 2


async def test_without_a_ledger_refused_reports_could_be_farmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: with the ledger off, every refusal yields a fresh report on the same data."""
    monkeypatch.setattr(store_module, "check_allowance", lambda *_: None)
    assert await farm(TWO_ROUNDS) == 10


async def test_an_exhausted_budget_says_so_and_sends_nothing() -> None:
    """The third round of the period is refused by the client itself."""
    transport = FakeTransport()
    client = make_client(transport, policy=TWO_ROUNDS)
    receipts = await client.contribute([HOME.round(number) for number in (1, 2, 3)])
    assert [receipt.token for receipt in receipts] == ["", "", "budget_exhausted"]
    assert len(transport.bodies) == 2


async def test_scopes_of_a_collector_share_one_allowance() -> None:
    """A collector that renames its scope for each round gets no more than one that does not.

    The control: with every scope a ledger of its own, six names would buy six rounds.
    """
    transport = FakeTransport()
    client = make_client(transport, policy=TWO_ROUNDS)
    rounds = [HOME.round(number, scope=f"scope-{number}") for number in range(1, 7)]
    receipts = await client.contribute(rounds)
    assert len(transport.bodies) == 2
    assert [receipt.token for receipt in receipts[2:]] == ["budget_exhausted"] * 4
    by_scope = [make_client(transport, policy=TWO_ROUNDS) for _ in rounds]
    for other, envelope in zip(by_scope, rounds, strict=True):
        await other.contribute([envelope])
    assert len(transport.bodies) == 8


async def test_after_a_period_old_charges_no_longer_count() -> None:
    """The allowance is one of time, too."""
    clock = Clock()
    transport = FakeTransport()
    client = make_client(transport, policy=TWO_ROUNDS, clock=clock)
    await client.contribute([HOME.round(1), HOME.round(2)])
    assert len(transport.bodies) == 2
    clock.now += TWO_ROUNDS.period_s
    later = {"opens": int(clock.now), "closes": int(clock.now) + 60, "expires": int(clock.now) + 90}
    (receipt,) = await client.contribute([HOME.round(4, **later)])
    assert receipt.outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("took", [0.0, 0.003, 0.4, 0.999])
async def test_the_time_of_the_first_send_does_not_tell_how_long_the_plan_took(took: float) -> None:
    """However long it took within a step, the report leaves when the step ends.

    The control, without steps: it leaves when the plan ends.
    """
    left = []
    for step_s in (1.0, 0.0):
        clock = Clock()
        client = make_client(
            FakeTransport(),
            clock=clock,
            steady=iter([10.0, 10.0 + took]).__next__,
            patience=Patience(step_s=step_s),
        )
        (receipt,) = await client.contribute([HOME.round()])
        assert receipt.outcome is Outcome.ACCEPTED
        left.append(took + sum(clock.slept))
    assert left == [pytest.approx(1.0), took]


@pytest.mark.parametrize("plan", ["epsilon", "delta"])
async def test_a_promise_that_floats_cannot_hold_refuses_the_round_only(plan: str) -> None:
    """Numbers that round to 1 or to infinity are refused; other rounds are answered."""
    wild = {"epsilon": "1e-99", "delta": "0." + 40 * "9"}[plan]
    document = ROUND.plan_object() | {plan: wild}
    hostile = HOME.round(2, plan=canonical_json(document))
    transport = FakeTransport()
    refused, answered = await make_client(transport).contribute([hostile, HOME.round()])
    assert (refused.outcome, refused.token) == (Outcome.REFUSED, "bad_plan")
    assert answered.outcome is Outcome.ACCEPTED


async def test_a_round_is_answered_once() -> None:
    """Calling again makes no second report for it, and charges nothing."""
    store = MemoryStore(ROWS)
    transport = FakeTransport()
    client = make_client(transport, store=store)
    await client.contribute([HOME.round()])
    assert await client.contribute([HOME.round(), HOME.round()]) == []
    assert len(transport.bodies) == 1
    assert store.spent(HOME.config().endpoint, 0) == COST


def everything_in(folder: Path) -> bytes:
    """All bytes of all files: database, log and index."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_a_round_that_was_answered_is_not_judged_again() -> None:
    """Listed once more after its end, it is not refused as closed: it was answered."""
    clock = Clock()
    client = make_client(FakeTransport(), clock=clock)
    await client.contribute([HOME.round()])
    clock.now = ROUND.closes + 301
    assert await client.contribute([HOME.round()]) == []
    (receipt,) = await client.contribute([HOME.round(2)])
    assert receipt.token == "round_closed"


async def test_the_ephemeral_key_is_never_stored(tmp_path: Path) -> None:
    """Neither the file nor its log holds the secret; the body, which is public, is there."""
    secret = bytes(range(101, 133))
    with SqliteStore(tmp_path / "client") as store:
        transport = FakeTransport(TransportError("gone"))
        client = make_client(transport, store=store, random_bytes=lambda n: secret[:n])
        await client.contribute([HOME.round()])
        (pending,) = store.pending(HOME.config().endpoint)
        kept = everything_in(tmp_path)
    assert pending.body in kept
    assert secret not in kept
    for encoded in (secret.hex().encode(), base64.b64encode(secret)):
        assert encoded not in kept


async def test_every_report_has_a_key_of_its_own() -> None:
    """Two clients, or two rounds, with equal data send bytes that have nothing in common."""
    transport = FakeTransport()
    await make_client(transport).contribute([HOME.round(1), HOME.round(2)])
    await make_client(transport).contribute([HOME.round(1)])
    assert len({body[17:49] for body in transport.bodies}) == 3


async def test_a_vector_beyond_the_gate_becomes_zeros_and_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the compiler or the plan did, no more than linf leaves."""
    monkeypatch.setattr(
        Plan, "execute", lambda *_: np.full(ROUND.slots, ROUND.linf, dtype=np.int64)
    )
    transport, store = FakeTransport(), MemoryStore(ROWS)
    (receipt,) = await make_client(transport, store=store).contribute([HOME.round()])
    assert (receipt.outcome, receipt.fault) == (Outcome.ACCEPTED, "gate")
    assert store.faults() == {"gate": 1}
    assert not any(inside(ROUND, transport.bodies[0]))


async def test_without_the_gate_that_vector_would_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the gate off, the report breaks the bound that the noise was made for."""
    monkeypatch.setattr(
        Plan, "execute", lambda *_: np.full(ROUND.slots, ROUND.linf, dtype=np.int64)
    )
    monkeypatch.setattr(oneshot, "gate", lambda *_: True)
    transport = FakeTransport()
    await make_client(transport).contribute([HOME.round()])
    assert sum(v * v for v in inside(ROUND, transport.bodies[0])) > ROUND.l2sq


async def test_a_plan_that_fails_becomes_zeros_and_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault that showed in whether one sends would be an answer, too."""

    def broken(*_: object) -> None:
        raise ValueError("rows that nobody expected")

    monkeypatch.setattr(Plan, "execute", broken)
    transport, store = FakeTransport(), MemoryStore(ROWS)
    (receipt,) = await make_client(transport, store=store).contribute([HOME.round()])
    assert (receipt.outcome, receipt.fault) == (Outcome.ACCEPTED, "plan")
    assert store.faults() == {"plan": 1}
    assert not any(inside(ROUND, transport.bodies[0]))


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


async def test_a_store_that_cannot_write_sends_nothing(tmp_path: Path) -> None:
    """Our own fault surfaces as such, before anything has left."""
    store = SqliteStore(tmp_path / "client")
    store.close()
    transport = FakeTransport()
    with pytest.raises(sqlite3.Error):
        await make_client(transport, store=store).contribute([HOME.round()])
    assert not transport.bodies


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
