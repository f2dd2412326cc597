"""What leaves keeps the bounds that the noise was made for (docs/protocol.md 14, 4 and 5)."""

import numpy as np
import pytest

from client_py.receipts import Outcome
from client_py.store import MemoryStore
from dandelion.encoding import canonical_json
from dandelion.queries.plan import Plan
from dandelion.schemes import oneshot
from tests.client.builders import ROWS, Deployment, FakeTransport, make_client, plan_of, unmasked

HOME = Deployment()
ROUND = HOME.descriptor()


async def test_the_report_holds_what_the_plan_says() -> None:
    """All helpers together would see the clipped vector of the local rows."""
    transport = FakeTransport()
    await make_client(transport).contribute([HOME.round()])
    expected = plan_of(ROUND).execute(ROWS["flight"], lambda n, k: range(k))
    assert unmasked(ROUND, transport.bodies[0]) == expected.tolist()
    assert len(transport.bodies[0]) == ROUND.report_bytes


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
    assert not any(unmasked(ROUND, transport.bodies[0]))


async def test_without_the_gate_that_vector_would_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the gate off, the report breaks the bound that the noise was made for."""
    monkeypatch.setattr(
        Plan, "execute", lambda *_: np.full(ROUND.slots, ROUND.linf, dtype=np.int64)
    )
    monkeypatch.setattr(oneshot, "gate", lambda *_: True)
    transport = FakeTransport()
    await make_client(transport).contribute([HOME.round()])
    assert sum(v * v for v in unmasked(ROUND, transport.bodies[0])) > ROUND.l2sq


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
    assert not any(unmasked(ROUND, transport.bodies[0]))


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
