"""The client's own ledger: paid before the first send, never refunded (docs/protocol.md 14, 6)."""

import json

import pytest

from client_py import store as store_module
from client_py.config import Policy
from client_py.receipts import Outcome
from client_py.store import MemoryStore
from client_py.transport import Reply, TransportError
from dandelion.errors import problem
from dandelion.params import MEDIA_PROBLEM
from tests.client.builders import ROWS, Clock, Deployment, FakeTransport, make_client

HOME = Deployment()
ROUND = HOME.descriptor()
COST = ROUND.rho_units

# Two rounds of epsilon 1 and a little more, but not three.
TWO_ROUNDS = Policy(epsilon_period=1.45)


def rejection(token: str, status: int) -> Reply:
    """A final refusal."""
    return Reply(status, json.dumps(problem(token)).encode(), MEDIA_PROBLEM)


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
