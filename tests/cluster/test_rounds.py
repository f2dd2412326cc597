"""Whole rounds over a cluster, while its servers change places, lose their memory, or die."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from collector import redis_store, sealing
from collector.anchors import INTERVAL_S
from tests.cluster.failovers import Plan, play
from tests.cluster.rounds import CLIENTS, ClusterRound, Wrong, cluster_round
from tests.cluster.servers import ClusterServers, Server, until

EVERYBODY = set(range(CLIENTS))


@asynccontextmanager
async def under_load(taking: ClusterRound, count: int) -> AsyncIterator[None]:
    """Clients send; so many have been told yes when the body begins, and all when it has ended."""
    sending = asyncio.create_task(taking.send(range(CLIENTS)))
    await taking.has(count)
    try:
        yield
        await sending
    finally:
        sending.cancel()


async def test_two_processes_share_a_round(tmp_path: Path, servers: ClusterServers) -> None:
    """Lanes on several masters, reports through both processes, released exactly."""
    async with cluster_round(tmp_path, servers, 1) as taking:
        assert len({taking.holder(lane).port for lane in taking.lanes}) > 1
        await taking.send(range(CLIENTS))
        assert taking.acknowledged == EVERYBODY
        store = servers.store(1)
        metas = [meta for lane in taking.lanes for meta in await store.metas(lane)]
        assert len({meta.epoch.who for meta in metas if meta.n}) == 2
        assert await taking.finish() == "released"


async def test_a_master_dies_and_nothing_is_lost(tmp_path: Path, servers: ClusterServers) -> None:
    """kill -9 under load: the replica has all that was acknowledged, and the round goes on."""
    async with cluster_round(tmp_path, servers, 1) as taking:
        async with under_load(taking, 40):
            master = taking.holder(taking.lanes[0])
            replica = servers.replica_of(master)
            master.kill()
            await asyncio.to_thread(until, lambda: servers.has_taken_over(replica), "no failover")
            # Commits of its lanes wait until there is a replica again.
            await asyncio.to_thread(master.start)
        assert taking.acknowledged == EVERYBODY
        assert await taking.finish() == "released"


async def test_a_master_and_a_process_die_together(tmp_path: Path, servers: ClusterServers) -> None:
    """No anchor of the last moment was written, and none is needed: a replica has every commit."""
    async with cluster_round(tmp_path, servers, 1) as taking:
        async with under_load(taking, 40):
            master = taking.holder(taking.lanes[0])
            taking.kill_worker()
            await asyncio.to_thread(servers.replace, master)
            await asyncio.to_thread(master.start)
        assert taking.acknowledged == EVERYBODY
        assert await taking.finish() == "released"


async def test_servers_change_places_and_slots_move(
    tmp_path: Path, servers: ClusterServers
) -> None:
    """In good order nothing is lost, whether or not anybody waits for replicas."""
    async with cluster_round(tmp_path, servers, 0) as taking:
        async with under_load(taking, 40):
            await asyncio.to_thread(servers.hand_over, taking.holder(taking.lanes[0]))
            lane = taking.lanes[1]
            slot = key_slot(b"{%s:%s}" % (taking.id.encode(), lane.name.encode()))
            source = taking.holder(lane)
            target = next(it for it in servers.masters() if it is not source)
            servers.begin_moving(slot, source, target)
            await taking.has(80)
            await asyncio.to_thread(servers.end_moving, slot, source, target)
        assert taking.acknowledged == EVERYBODY
        assert taking.holder(lane) is target
        assert await taking.finish() == "released"


# A failover that loses acknowledged reports


async def lose(taking: ClusterRound, servers: ClusterServers) -> Server:
    """Has a replica that has missed acknowledged commits take its master's place."""
    master = taking.holder(taking.lanes[0])
    servers.replica_of(master).cut_off()
    await taking.has(len(taking.acknowledged) + 60)
    return await asyncio.to_thread(servers.replace, master)


async def test_a_loss_under_load_is_noticed(tmp_path: Path, servers: ClusterServers) -> None:
    """The next commit does not follow on what the new master knows: the round ends damaged."""
    async with cluster_round(tmp_path, servers, 0) as taking:
        sending = asyncio.create_task(taking.send(range(CLIENTS)))
        await taking.has(40)
        await lose(taking, servers)
        shown = await taking.it.until(taking.id, "damaged", seconds=40)
        assert "damaged" in shown["reason"] or "lost" in shown["reason"]
        assert await taking.finish() == "damaged"
        await sending


async def test_control_without_numbers_a_loss_enters_the_sum(
    tmp_path: Path, servers: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that takes any number adds up reports whose keys are gone: the sum is noise."""
    text = redis_store._COMMIT.text
    blind = text.replace("if seq ~= known + 1 then", "if false then")
    assert blind != text
    monkeypatch.setattr(redis_store, "_COMMIT", redis_store._Script.of(blind))
    monkeypatch.setattr(sealing, "losses", lambda *_: 0)
    async with cluster_round(tmp_path, servers, 0, workers=1) as taking:
        async with under_load(taking, 40):
            await lose(taking, servers)
        try:
            phase = await taking.finish()
        except Wrong:
            return
        # The helpers have been asked, and their answers do not fit: the very last net.
        assert phase == "damaged"
        assert taking.reason.startswith("set, sum and answers disagree")


async def quiet_loss(taking: ClusterRound, servers: ClusterServers) -> None:
    """Loses commits of a process that dies as well; nobody commits afterwards."""
    await taking.send(range(80))
    master = taking.holder(taking.lanes[0])
    servers.replica_of(master).cut_off()
    await taking.send(range(80, 200))
    await asyncio.sleep(1.5 * INTERVAL_S)
    taking.kill_worker()
    await asyncio.to_thread(servers.replace, master)


async def test_a_loss_that_nobody_saw_is_noticed_at_the_seal(
    tmp_path: Path, servers: ClusterServers
) -> None:
    """Process and master die together, nobody commits any more: anchors contradict the store."""
    async with cluster_round(tmp_path, servers, 0) as taking:
        await quiet_loss(taking, servers)
        assert await taking.finish() == "damaged"
        assert "behind what was acknowledged" in taking.reason


async def test_control_without_anchors_a_loss_is_released(
    tmp_path: Path, servers: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts in the store agree with each other: acknowledged reports are simply missing."""
    monkeypatch.setattr(sealing, "losses", lambda *_: 0)
    async with cluster_round(tmp_path, servers, 0) as taking:
        await quiet_loss(taking, servers)
        with pytest.raises(Wrong, match="lost"):
            await taking.finish()


async def test_drawn_failovers(tmp_path: Path, servers: ClusterServers) -> None:
    """One seed of `make failovers`, which plays many."""
    await play(tmp_path, servers, Plan.draw(12))
