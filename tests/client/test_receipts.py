"""What a client tells its owner."""

import json

from client_py.config import Policy
from client_py.receipts import Outcome, Receipt
from client_py.store import MemoryStore
from client_py.transport import TransportError
from tests.client.builders import ROWS, SQL, Deployment, FakeTransport, make_client

HOME = Deployment()


async def test_a_receipt_says_what_was_sent_when_for_what_and_at_what_price() -> None:
    """Enough to check the client's ledger and the published release against."""
    store = MemoryStore(ROWS)
    await make_client(FakeTransport(), store=store).contribute([HOME.round()])
    (receipt,) = store.receipts()
    assert receipt.round_id == HOME.descriptor().round_id.hex()
    assert (receipt.query, receipt.sql, receipt.scope) == ("carrier-delay", SQL, "public")
    assert (receipt.epsilon, receipt.delta) == ("1", "1e-8")
    assert receipt.rho_units == HOME.descriptor().rho_units
    assert receipt.bytes_sent == HOME.descriptor().report_bytes
    text = receipt.in_words()
    for part in ("2027-01-15 08:00 UTC", "“carrier-delay”", "accepted", "epsilon 1", SQL):
        assert part in text
    assert json.loads(json.dumps(receipt.to_object()))["outcome"] == "accepted"


async def test_a_receipt_of_nothing_claims_no_price() -> None:
    """Refused before the ledger: nothing charged, nothing sent, the reason given."""
    client = make_client(FakeTransport(), policy=Policy(epsilon_period=0.5))
    (receipt,) = await client.contribute([HOME.round()])
    assert (receipt.rho_units, receipt.bytes_sent) == (0, 0)
    text = receipt.in_words()
    assert "was not made: this client refuses the round" in text
    assert "budget_exhausted" in text
    assert "charged" not in text


async def test_a_receipt_of_a_report_on_its_way_says_that_it_will_be_sent_again() -> None:
    """With the number of attempts so far."""
    client = make_client(FakeTransport(TransportError("no answer in time")))
    (receipt,) = await client.contribute([HOME.round()])
    assert "will be sent again, byte for byte" in receipt.in_words()
    assert "sent 4 times" in receipt.in_words()


def test_every_outcome_has_words() -> None:
    """And a receipt without a round does not pretend to have one."""
    for outcome in Outcome:
        assert "a report" in Receipt(outcome, 0).in_words()
