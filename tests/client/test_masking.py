"""One mask per report, no key stored, sent when the time tells nothing (docs/protocol.md 14, 7)."""

import base64
import sqlite3
from pathlib import Path

import pytest

from client_py.client import Patience
from client_py.receipts import Outcome
from client_py.sqlite_store import SqliteStore
from client_py.transport import TransportError
from tests.client.builders import Clock, Deployment, FakeTransport, make_client

HOME = Deployment()


def everything_in(folder: Path) -> bytes:
    """All bytes of all files: database, log and index."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


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


async def test_a_store_that_cannot_write_sends_nothing(tmp_path: Path) -> None:
    """Our own fault surfaces as such, before anything has left."""
    store = SqliteStore(tmp_path / "client")
    store.close()
    transport = FakeTransport()
    with pytest.raises(sqlite3.Error):
        await make_client(transport, store=store).contribute([HOME.round()])
    assert not transport.bodies
