"""What a corrupt helper, a slow or forgetful store and a full disk must not bring about.

Each test ends in the state that a reader of docs/protocol.md sections 9 and 10.4 expects.
"""

import asyncio
import copy
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from collector import anchors
from collector.anchors import AnchorFile
from collector.committer import Outcome
from collector.config import HelperPeer, Limits
from collector.helper_client import Helper, HelperRefused, HelperUnavailable, new_session
from collector.ingest import Ingest
from collector.metrics import Metrics
from collector.store import Epoch, EpochMeta, Lane, MemoryStore
from helper import handlers as helper_handlers
from tests.collector.builders import descriptor_for, plain_report
from tests.collector.door import door, random_key, round_for
from tests.collector.rig import QUERY, masked, parties, rig


@pytest.fixture
async def hostile_helper(request: pytest.FixtureRequest) -> AsyncIterator[Helper]:
    """The collector's view of a helper that gives one fixed answer to everything."""
    options: dict[str, Any] = request.param

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(**options)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    session = new_session()
    peer = HelperPeer(
        url=f"http://127.0.0.1:{runner.addresses[0][1]}", identity="00" * 32, token="t"
    )
    try:
        yield Helper(session, peer, 5)
    finally:
        await session.close()
        await runner.cleanup()


DEEP = b"[" * 60_000


@pytest.mark.parametrize(
    "hostile_helper",
    [
        {"status": 503, "body": DEEP, "content_type": "application/problem+json"},
        {"status": 201, "body": DEEP, "content_type": "application/json"},
    ],
    ids=["problem", "key"],
    indirect=True,
)
async def test_an_answer_too_deep_to_parse_is_a_helper_that_is_away(hostile_helper: Helper) -> None:
    """A body made to exhaust the parser ends in the error that the driver knows how to wait for."""
    with pytest.raises((HelperUnavailable, HelperRefused)):
        await hostile_helper.new_key()


async def test_one_helper_cannot_stop_the_driver_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait of 5,000 digits is no number; the round is released once the helper behaves."""
    behaves = False
    poll = helper_handlers._poll

    def wild(seconds: int) -> web.Response:
        response = poll(seconds)
        if not behaves:
            response.headers["Retry-After"] = "9" * 5_000
        return response

    monkeypatch.setattr(helper_handlers, "_poll", wild)
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open(1)
        assert await it.send(d, range(4)) == [201] * 4
        await it.until(round_id, "sealed", "released")
        await asyncio.sleep(0.5)
        behaves = True
        await it.until(round_id, "released")


class SlowStore(MemoryStore):
    """A store that answers, late."""

    async def commit(self, *arguments: Any) -> Any:
        await asyncio.sleep(0.4)
        return await super().commit(*arguments)


async def test_bounds_hold_while_the_store_is_slow(tmp_path: Path) -> None:
    """Reports whose senders have been sent away still count until the store has had them."""
    limits = {"answer_s": 0.3, "waiting_reports_max": 20, "batch_reports": 1}
    async with door(tmp_path, SlowStore(), slots=64, limits=limits) as it:

        async def one() -> int:
            body = bytearray(plain_report(it.d, 1).encode())
            body[17:49] = random_key()
            status: int = (await it.post(bytes(body)))[0]
            return status

        for _ in range(6):
            await asyncio.gather(*(one() for _ in range(20)))
        (committer,) = it.node.ingest._committers.values()
        assert len(committer._pending) <= 20


async def test_a_committed_report_is_known_after_the_store_was_emptied(tmp_path: Path) -> None:
    """The sealed set is kept outside the store, so a late retry still hears 200."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open(1)
        report = masked(d, 0)
        assert (await it.post(round_id, report))[0] == 201
        assert await it.send(d, range(1, 4)) == [201] * 3
        for gate in it.gates:
            gate.shut()
        await it.until(round_id, "sealed")
        store._lanes.clear()
        assert (await it.post(round_id, report))[0] == 200
        assert await it.send(d, range(6)) == [200] * 4 + [409] * 2


async def test_a_report_under_way_elsewhere_is_not_refused_for_good(tmp_path: Path) -> None:
    """After `closes`, a process that does not find a report cannot say that nobody has it."""
    gate = asyncio.Event()

    class Waiting(MemoryStore):
        async def commit(self, *arguments: Any) -> Any:
            await gate.wait()
            return await super().commit(*arguments)

    store = Waiting()
    round_ = round_for(descriptor_for(8, closes_in=100))
    for lane in round_.layout.lanes:
        await store.open_lane(round_.layout, lane)
    opened = time.time()
    clock = [opened + 1]
    with AnchorFile(tmp_path / "a", "1") as one, AnchorFile(tmp_path / "a", "2") as two:
        here, there = (
            Ingest(store, Limits(), it, Metrics(), lambda: clock[0]) for it in (one, two)
        )
        body = plain_report(round_.descriptor, 1).encode()
        first = asyncio.create_task(here.accept(round_, body))
        await asyncio.sleep(0.05)
        clock[0] = opened + 101
        second = await there.accept(round_, body)
        gate.set()
        assert await first is Outcome.ACCEPTED
        assert second is Outcome.UNAVAILABLE
        assert await there.accept(round_, body) is Outcome.DUPLICATE
        await here.drain(1)
        await there.drain(1)


async def test_a_loss_that_takes_the_list_along_is_still_a_loss(tmp_path: Path) -> None:
    """A store that comes back without the round's reports and without the round in its list."""
    store = MemoryStore()
    older: dict[Any, Any] = {}
    publish = store.publish

    async def publish_and_copy(round_id: bytes, record: bytes) -> None:
        if not older:
            older.update(copy.deepcopy(store._lanes))
        await publish(round_id, record)

    store.publish = publish_and_copy  # type: ignore[method-assign]
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            round_id, d = await it.open(6)
            assert await it.send(d, range(4)) == [201] * 4
            await asyncio.sleep(1.5)
            store._lanes = older
            store._published.clear()
            store._version += 1
            await asyncio.sleep(1.5)
        async with them.rig(store) as it:
            await it.send(d, range(10, 14))
            await it.until(round_id, "damaged", seconds=25)


async def test_anchors_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is written when there is room again."""
    full = True
    replace = anchors._replace

    def replace_or_fail(path: Path, text: str) -> None:
        if full:
            raise OSError(28, "No space left on device")
        replace(path, text)

    monkeypatch.setattr(anchors, "_replace", replace_or_fail)
    monkeypatch.setattr(anchors, "INTERVAL_S", 0.01)
    lane, epoch = Lane(bytes(16), 0, 0), Epoch(1, bytes(16))
    with AnchorFile(tmp_path / "a", "x") as file:
        task = asyncio.create_task(file.run())
        file.note(lane, EpochMeta(epoch, 1, 1))
        await asyncio.sleep(0.1)
        assert not task.done()
        full = False
        await asyncio.sleep(0.2)
        (kept,) = anchors.read(tmp_path / "a", bytes(16))
        assert kept.meta.seq == 1
        task.cancel()
        await asyncio.wait({task})


async def test_rounds_that_the_database_does_not_know_are_not_taken(tmp_path: Path) -> None:
    """The database is restored to before a round that the store still lists: no report is lost."""
    store = MemoryStore()
    database = tmp_path / "collector" / "collector.sqlite3"
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            await it.admin("POST", "queries", QUERY)
            source, copy_ = sqlite3.connect(database), sqlite3.connect(tmp_path / "backup")
            source.backup(copy_)
            copy_.close()
            source.close()
            _, d = await it.open(30)
        for path in database.parent.glob(f"{database.name}*"):
            path.unlink()
        (tmp_path / "backup").rename(database)
        async with them.rig(store) as it:
            assert 201 not in await it.send(d, range(3))
            _, shown = await it.admin("GET", "rounds")
            assert shown["rounds"] == []
