"""Taking part is decided by policy and coins, never by data (docs/protocol.md 14, 3)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client_py.config import Policy
from client_py.receipts import Outcome
from client_py.sqlite_store import SqliteStore
from client_py.store import ClientStore, MemoryStore
from dandelion.queries.measures import Row
from tests.client.builders import ROWS, Deployment, FakeTransport, make_client, unmasked

HOME = Deployment()
ROUND = HOME.descriptor()


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
    assert not any(unmasked(ROUND, transport.bodies[0]))


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
