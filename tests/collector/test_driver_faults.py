"""Faults of ours and of the store while a round is driven: it goes on, and operators see why."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector import registry
from collector.store import Lane, LaneStatus, Layout, MemoryStore, StoreUnavailable
from tests.collector.rig import QUERY, Rig, parties, rig
from tests.collector.test_rounds import assert_published

FAILURES = 'dandelion_driver_failures_total{process="0"} '


class Down(MemoryStore):
    """A store that does not answer what the driver asks while it is `down`."""

    down = False
    refused = 0

    def _answering(self) -> None:
        if self.down:
            self.refused += 1
            raise StoreUnavailable("down")

    async def open_lane(self, layout: Layout, lane: Lane) -> None:
        self._answering()
        await super().open_lane(layout, lane)

    async def status(self, lane: Lane) -> LaneStatus:
        self._answering()
        return await super().status(lane)

    async def publish(self, round_id: bytes, record: bytes) -> None:
        self._answering()
        await super().publish(round_id, record)


async def readiness(it: Rig) -> tuple[int, list[str], int]:
    """Status and reasons that operators see, and the status that the public sees."""
    async with it.session.get(f"{it.node.admin_url}/readyz") as response:
        status, reasons = response.status, (await response.json())["reasons"]
    return status, reasons, (await it.get("/readyz"))[0]


async def failures(it: Rig) -> int:
    """The driver's failures as the metrics show them."""
    async with it.session.get(f"{it.node.admin_url}/metrics") as response:
        lines = (await response.text()).splitlines()
    [line] = [line for line in lines if line.startswith(FAILURES)]
    return int(line.removeprefix(FAILURES))


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_fault_of_ours_delays_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw: counted, shown to operators only, and tried again."""
    real, broken = registry.add_release, True

    def failing(*args: Any, **named: Any) -> Any:
        if broken:
            raise ZeroDivisionError
        return real(*args, **named)

    monkeypatch.setattr(registry, "add_release", failing)
    async with rig(tmp_path, MemoryStore()) as it:
        driver = it.node.driver
        assert driver is not None
        round_id, d = await it.open()
        await it.send(d, range(4))
        assert (await readiness(it), await failures(it)) == ((200, [], 200), 0)
        it.clock.reach(d.closes)
        await until(lambda: driver.failed > 0)
        # Reports of other rounds can be taken: the public side stays ready.
        assert await readiness(it) == (503, ["driver_failed"], 200)
        assert await failures(it) > 0
        broken = False
        await assert_published(it, round_id, range(4))
        await until(lambda: not driver.failing)
        assert await readiness(it) == (200, [], 200)


async def test_a_disk_that_fails_at_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round is lost and the disk is full: the verdict is written when there is room again."""
    real = registry.move
    failed: list[object] = []

    def failing(*args: Any, **named: Any) -> Any:
        if not failed:
            failed.append(args)
            raise sqlite3.OperationalError("database or disk is full")
        return real(*args, **named)

    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        monkeypatch.setattr(registry, "move", failing)
        store._lanes.clear()
        shown = await it.until(round_id, "damaged")
        assert shown["reason"] == "lane 0.0 is gone"
    assert failed


async def test_a_write_whose_success_was_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seal that is on disk although the disk reported a fault is not made again."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        real = it.node.database._act
        lied: list[object] = []

        def lying(act: Callable[[sqlite3.Connection], Any]) -> Any:
            found = real(act)
            if not lied and it.node.database.connection.execute("SELECT 1 FROM seals").fetchone():
                lied.append(act)
                raise sqlite3.OperationalError("disk I/O error")
            return found

        monkeypatch.setattr(it.node.database, "_act", lying)
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
    assert lied


async def test_a_round_opened_while_the_store_is_away(tmp_path: Path) -> None:
    """It is stored, so the answer is 201; it takes reports when the store is back."""
    store = Down()
    limits = {"answer_s": 0.3, "helper_retry_max_s": 0.5}
    async with rig(tmp_path, store, limits=limits) as it:
        await it.admin("POST", "queries", QUERY)
        store.down = True
        status, shown = await it.admin("POST", "rounds", {"query": "members", "duration_s": 600})
        assert (status, shown["phase"], shown["reports"]) == (201, "open", None)
        _, listed = await it.admin("GET", "rounds")
        assert [row["round"] for row in listed["rounds"]] == [shown["round"]]
        store.down = False
        row = await it.node.database.run(
            lambda connection: registry.round_row(connection, bytes.fromhex(shown["round"]))
        )
        await until(lambda: row.round_id in store._published)
        assert await it.send(row.descriptor, range(3)) == [201] * 3


async def test_a_round_closed_while_the_store_is_away(tmp_path: Path) -> None:
    """The decision is stored at once: 200, and a restart does not take it back."""
    store = Down()
    limits = {"answer_s": 0.3, "helper_retry_max_s": 0.5}
    async with parties(tmp_path) as them:
        async with them.rig(store, limits=limits) as it:
            round_id, d = await it.open()
            await it.send(d, range(3))
            store.down = True
            await until(lambda: store.refused > 0)
            status, shown = await it.admin("POST", f"rounds/{round_id}/close")
            assert (status, shown["phase"]) == (200, "closing")
        store.down = False
        async with them.rig(store) as it:
            assert (await it.until(round_id, "open", "closing"))["phase"] == "closing"
            it.clock.reach(d.closes)
            await assert_published(it, round_id, range(3))


async def test_a_list_of_another_time_is_tidied(tmp_path: Path) -> None:
    """At the start rounds that the database does not know leave the list; its own stay."""
    store, stranger = MemoryStore(), b"s" * 16
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            round_id, _ = await it.open()
        await store.publish(stranger, store._published[bytes.fromhex(round_id)])
        async with them.rig(store) as it:
            await until(lambda: set(store._published) == {bytes.fromhex(round_id)})
