"""The durable store behaves like its model, and forgets what it should."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from client_py.events import ROW_BYTES_MAX, Retention
from client_py.receipts import Outcome, Receipt
from client_py.sqlite_store import SqliteStore
from client_py.store import Allowance, Charge, ClientStore, MemoryStore, Pending
from dandelion.errors import RuleError
from dandelion.queries.schema import Registry

NOW = 1_800_000_000
ORIGIN = "https://collector.example"
CTX = bytes(range(32))
PLENTY = Allowance(10**30, 0)


def receipt(outcome: Outcome = Outcome.WAITING) -> Receipt:
    """A receipt with something in every field."""
    return Receipt(
        outcome, NOW, "ab" * 16, "é", "SELECT", "public", "1", "1e-8", 5, 7, 1, "t", "d", "f", "e"
    )


def charge(ctx: bytes = CTX, units: int = 5, scope: str = "public", at: int = NOW) -> Charge:
    """A charge of 5 units."""
    return Charge(ORIGIN, scope, ctx, units, at)


def pending(ctx: bytes = CTX) -> Pending:
    """A report for a round."""
    return Pending(ORIGIN, ctx, ctx[:16], b"body" + ctx, NOW + 60, receipt())


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClientStore]:
    """Each kind of store."""
    if request.param == "memory":
        yield MemoryStore()
        return
    with SqliteStore(tmp_path / "client") as durable:
        yield durable


def test_a_charge_and_its_report_appear_together(store: ClientStore) -> None:
    """After a commit both are there, before it neither."""
    assert not store.known(CTX)
    assert store.commit(charge(), PLENTY, pending) == pending()
    assert store.known(CTX)
    assert store.pending(ORIGIN) == [pending()]
    assert store.spent(ORIGIN, 0) == 5


def test_a_report_that_cannot_be_made_is_not_charged(store: ClientStore) -> None:
    """The transaction is all or nothing."""

    def broken() -> Pending:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.commit(charge(), PLENTY, broken)
    assert not store.known(CTX)
    assert store.pending(ORIGIN) == []
    assert store.spent(ORIGIN, 0) == 0


def test_a_second_report_for_a_round_is_not_made(store: ClientStore) -> None:
    """Not even if the first one is finished."""
    store.commit(charge(), PLENTY, pending)
    store.finish(CTX, receipt(Outcome.REJECTED))

    def never() -> Pending:
        raise AssertionError("masked twice")

    assert store.commit(charge(), PLENTY, never) is None


def test_what_the_allowance_cannot_pay_is_not_made(store: ClientStore) -> None:
    """Exactly the allowance can be spent; charges before the period do not count."""
    make: Callable[[], Pending] = pending
    store.commit(charge(at=NOW - 100), PLENTY, make)
    other = b"o" * 32
    with pytest.raises(RuleError, match="budget_exhausted"):
        store.commit(charge(other), Allowance(9, NOW - 101), lambda: pending(other))
    assert not store.known(other)
    store.commit(charge(other), Allowance(10, NOW - 101), lambda: pending(other))
    third = b"t" * 32
    store.commit(charge(third), Allowance(10, NOW - 100), lambda: pending(third))
    assert store.spent(ORIGIN, 0) == 15
    assert store.spent(ORIGIN, NOW - 100) == 10
    assert store.spent("https://other.example", 0) == 0


def test_a_charge_may_be_larger_than_63_bits(store: ClientStore) -> None:
    """rho in units of 2^-40 of a round with hardly any noise."""
    store.commit(charge(units=2**92), PLENTY, pending)
    assert store.spent(ORIGIN, 0) == 2**92


def test_a_postponed_report_keeps_its_bytes(store: ClientStore) -> None:
    """Only attempts and time change."""
    store.commit(charge(), PLENTY, pending)
    store.postpone(CTX, 3, NOW + 9)
    assert store.pending(ORIGIN) == [replace(pending(), attempts=3, not_before=NOW + 9)]


def test_a_finished_report_leaves_a_receipt(store: ClientStore) -> None:
    """Oldest first, whole."""
    for index, outcome in enumerate((Outcome.ACCEPTED, Outcome.REJECTED)):
        ctx = bytes([index]) * 32
        store.commit(charge(ctx), PLENTY, lambda ctx=ctx: pending(ctx))  # type: ignore[misc]
        store.finish(ctx, receipt(outcome))
    assert store.receipts() == [receipt(Outcome.ACCEPTED), receipt(Outcome.REJECTED)]
    assert store.pending(ORIGIN) == []


def test_a_coin_falls_once(store: ClientStore) -> None:
    """Later tosses are not made."""
    fallen = iter((False, True))
    assert store.coin(CTX, NOW, lambda: next(fallen)) is False
    assert store.coin(CTX, NOW, lambda: next(fallen)) is False
    assert store.coin(b"o" * 32, NOW, lambda: next(fallen)) is True


def test_faults_and_the_next_visit_are_kept(store: ClientStore) -> None:
    """Two counters and a time."""
    assert (store.faults(), store.next_visit(ORIGIN)) == ({}, 0)
    store.count_fault("gate")
    store.count_fault("gate")
    store.count_fault("plan")
    store.visit_at(ORIGIN, NOW)
    assert (store.faults(), store.next_visit(ORIGIN)) == ({"gate": 2, "plan": 1}, NOW)
    assert store.next_visit("https://other.example") == 0


def test_a_report_is_for_one_deployment(store: ClientStore) -> None:
    """Where two deployments share a store, neither is sent the other's reports."""
    store.commit(charge(), PLENTY, pending)
    assert store.pending("https://other.example") == []


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    """Also the log beside it."""
    with SqliteStore(tmp_path / "client") as store:
        store.events.record("visit", {"a": 1}, NOW)
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    """As any other file that cannot be used."""
    (tmp_path / "client").write_bytes(b"dear diary " * 1_000)
    with pytest.raises(OSError, match="not a database"):
        SqliteStore(tmp_path / "client")


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Charges, bodies, receipts, coins, events."""
    path = tmp_path / "client"
    other = b"o" * 32
    with SqliteStore(path) as first:
        first.events.record("visit", {"country": "DE"}, NOW)
        first.commit(charge(), PLENTY, pending)
        first.commit(charge(other), PLENTY, lambda: pending(other))
        first.finish(other, receipt(Outcome.ACCEPTED))
        first.coin(CTX, NOW, lambda: True)
    with SqliteStore(path) as second:
        assert second.rows("visit") == [{"country": "DE"}]
        assert second.pending(ORIGIN) == [pending()]
        assert second.receipts() == [receipt(Outcome.ACCEPTED)]
        assert second.spent(ORIGIN, 0) == 10
        assert second.coin(CTX, NOW, lambda: False)


def test_the_coins_of_expired_rounds_are_forgotten(tmp_path: Path) -> None:
    """They would otherwise grow for ever."""
    with SqliteStore(tmp_path / "client") as store:
        store.coin(CTX, NOW, lambda: False)
        store.prune(NOW - 1)
        assert store.coin(CTX, NOW, lambda: True) is False
        store.prune(NOW)
        assert store.coin(CTX, NOW, lambda: True) is True


def test_a_finished_body_is_overwritten(tmp_path: Path) -> None:
    """Its bytes are gone from the file, not only its row from the table."""
    with SqliteStore(tmp_path / "client") as store:
        store.commit(charge(), PLENTY, pending)
        store.finish(CTX, receipt(Outcome.ACCEPTED))
    assert pending().body not in (tmp_path / "client").read_bytes()


def test_rows_of_an_event_come_back_as_recorded(tmp_path: Path) -> None:
    """Strings, numbers, nothing; what is not finite is nothing."""
    with SqliteStore(tmp_path / "client") as store:
        store.events.record("visit", {"a": "é", "b": 1, "c": 1.5, "d": None}, NOW)
        store.events.record("visit", {"a": float("inf"), "b": float("nan")}, NOW)
        store.events.record("other", {"a": 1}, NOW)
        assert store.rows("visit") == [
            {"a": "é", "b": 1, "c": 1.5, "d": None},
            {"a": None, "b": None},
        ]
        assert store.rows("unheard of") == []
        assert store.events.counts() == {"other": 1, "visit": 2}


@pytest.mark.parametrize(
    "fields", [{"a": True}, {"a": [1]}, {"a": b"x"}, {"a": {"b": 1}}, {"a": "x" * ROW_BYTES_MAX}]
)
def test_what_no_plan_could_read_is_not_recorded(tmp_path: Path, fields: dict[str, object]) -> None:
    """Other types, or rows beyond measure, are refused where they are written."""
    with SqliteStore(tmp_path / "client") as store:
        with pytest.raises(RuleError, match="schema_refused"):
            store.events.record("visit", fields, NOW)
        assert store.rows("visit") == []


def test_with_a_registry_misspelt_names_are_noticed(tmp_path: Path) -> None:
    """An event or a column that is not declared."""
    with SqliteStore(tmp_path / "client", registry=Registry.example()) as store:
        store.events.record("flight", {"carrier": "UA"}, NOW)
        for event, column in (("flights", "carrier"), ("flight", "carier")):
            with pytest.raises(RuleError, match="not declared"):
                store.events.record(event, {column: "UA"}, NOW)


def test_old_rows_go_and_caps_hold(tmp_path: Path) -> None:
    """By age, by number and by size, the oldest first."""
    keep = Retention(retention_s=100, rows_max=3, bytes_max=40)
    with SqliteStore(tmp_path / "client", retention=keep) as store:
        store.events.record("visit", {"n": 0}, NOW)
        store.events.record("visit", {"n": 1}, NOW + 101)
        assert store.rows("visit") == [{"n": 1}]
        for n in (2, 3, 4):
            store.events.record("visit", {"n": n}, NOW + 101)
        assert [row["n"] for row in store.rows("visit")] == [2, 3, 4]
        store.events.record("visit", {"n": "x" * 30}, NOW + 101)
        assert [row["n"] for row in store.rows("visit")] == ["x" * 30]
        store.prune(NOW + 300)
        assert store.rows("visit") == []


def test_rows_can_be_deleted(tmp_path: Path) -> None:
    """All, one event's, or those before a moment."""
    with SqliteStore(tmp_path / "client") as store:
        for event, at in (("a", NOW), ("a", NOW + 1), ("b", NOW)):
            store.events.record(event, {"at": at}, at)
        assert store.events.delete("a", before=NOW + 1) == 1
        assert store.events.counts() == {"a": 1, "b": 1}
        assert store.events.delete("b") == 1
        assert store.events.delete() == 1
        assert store.events.counts() == {}


def test_deleted_rows_are_overwritten(tmp_path: Path) -> None:
    """What its owner deletes cannot be read from the file any more."""
    with SqliteStore(tmp_path / "client") as store:
        store.events.record("visit", {"secret": "correct horse battery staple"}, NOW)
        store.events.delete()
    assert b"battery" not in (tmp_path / "client").read_bytes()
    # The control: without secure_delete SQLite leaves the bytes where they were.
    plain = sqlite3.connect(tmp_path / "plain")
    plain.execute("PRAGMA secure_delete = OFF")
    plain.execute("CREATE TABLE events (fields TEXT)")
    plain.execute("INSERT INTO events VALUES ('correct horse battery staple')")
    plain.commit()
    plain.execute("DELETE FROM events")
    plain.commit()
    plain.close()
    assert b"battery" in (tmp_path / "plain").read_bytes()
