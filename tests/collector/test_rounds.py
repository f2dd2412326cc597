"""Whole rounds: from the question to the table, with real helpers and masked reports."""

import asyncio
import json
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from collector import registry
from collector.helper_client import Helper
from collector.node import running
from collector.store import LanePhase, MemoryStore, RoundStore
from dandelion.messages import Answer, Ask
from dandelion.verify import verify_release
from tests.collector.rig import Rig, masked, parties, rig
from tests.oracle_membership import assert_exactly_once


async def assert_published(it: Rig, round_id: str, clients: range) -> bytes:
    """The release names exactly these clients, and verifies by itself."""
    shown = await it.until(round_id, "released", "abandoned", "damaged")
    assert shown["phase"] == "released", shown
    status, artefact = await it.get(f"/v1/releases/{round_id}")
    assert status == 200
    verified = verify_release(artefact, helpers=tuple(each.identity for each in it.helpers))
    d = verified.release.descriptor
    assert d.round_id.hex() == round_id
    assert verified.n == len(clients)
    assert_exactly_once(verified.sums, clients, d.linf)
    return artefact


async def assert_nothing_published(it: Rig, round_id: str) -> None:
    """Neither artefact nor table, to nobody."""
    for path in (f"/v1/releases/{round_id}", f"/v1/releases/{round_id}/table"):
        status, body = await it.get(path)
        assert status == 404
        assert json.loads(body)["type"].endswith(":not_released")


async def kinds(it: Rig) -> list[str]:
    """The kinds of the ledger's entries, after its chain was checked."""
    _, ledger = await it.admin("GET", "ledger")
    assert ledger["intact"]
    return [entry["kind"] for entry in ledger["entries"]]


async def answers_kept(it: Rig) -> int:
    """How many answers of helpers the collector holds."""
    [count] = await it.node.database.run(
        lambda connection: connection.execute("SELECT count(*) FROM answers").fetchone()
    )
    return int(count)


async def test_a_round_from_question_to_table(tmp_path: Path, store: RoundStore) -> None:
    """Acknowledged and published are the same clients, each once; the table says so."""
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        assert await it.send(d, range(20)) == [201] * 20
        assert await it.send(d, range(20)) == [200] * 20
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(20))
        # A retry after the release is still told that it is in.
        assert await it.send(d, range(20)) == [200] * 20
        _, body = await it.get(f"/v1/releases/{round_id}/table")
        table = json.loads(body)
        assert table["reports"] == 20
        counts = [cell["estimate"] for cell in table["cells"] if cell["name"] == "COUNT(load)"]
        assert [round(count) for count in counts] == [1] * 20 + [0] * 44
        assert await kinds(it) == ["charge", "release"]
        _, body = await it.get("/v1/releases")
        [ended] = json.loads(body)["releases"]
        assert (ended["round"], ended["phase"], ended["reports"]) == (round_id, "released", 20)


async def test_every_reader_gets_the_same_bytes(tmp_path: Path) -> None:
    """The stored artefact is what is read, however often, also after a restart."""
    store = MemoryStore()
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            round_id, d = await it.open()
            await it.send(d, range(3))
            it.clock.reach(d.closes)
            artefact = await assert_published(it, round_id, range(3))
            reads = {(await it.get(f"/v1/releases/{round_id}"))[1] for _ in range(20)}
        async with them.rig(store) as it:
            reads.add((await it.get(f"/v1/releases/{round_id}"))[1])
    assert reads == {artefact}


async def test_a_small_cohort_is_never_unmasked(tmp_path: Path) -> None:
    """One report below cohort_min: abandoned, with the reason, unasked, unpublished."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        assert await it.send(d, [0]) == [201]
        it.clock.reach(d.closes)
        shown = await it.until(round_id, "released", "abandoned", "damaged")
        assert (shown["phase"], shown["reason"]) == (
            "abandoned",
            "every shard ended below cohort_min",
        )
        await assert_nothing_published(it, round_id)
        assert await kinds(it) == []
        assert await it.send(d, [0, 1]) == [200, 409]
        _, body = await it.get("/v1/releases")
        assert json.loads(body)["releases"][0]["phase"] == "abandoned"


async def test_a_helper_that_is_down_delays_a_round(tmp_path: Path) -> None:
    """While one helper is away the round waits and says why; nothing is lost."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(5))
        it.gates[1].shut()
        it.clock.reach(d.closes)
        await it.until(round_id, "sealed")
        await asyncio.sleep(0.5)
        shown = await it.until(round_id, "sealed", "released")
        assert (shown["phase"], shown["reason"][:7]) == ("sealed", "helper ")
        it.gates[1].open()
        await assert_published(it, round_id, range(5))


async def test_a_helper_that_stays_away_ends_a_round(tmp_path: Path) -> None:
    """At `expires` the round is abandoned, although the other helper has answered."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(5))
        it.gates[0].shut()
        it.clock.reach(d.closes)
        await it.until(round_id, "sealed")
        for _ in range(200):
            if await answers_kept(it):
                break
            await asyncio.sleep(0.05)
        assert await answers_kept(it) == 1
        it.clock.reach(d.expires)
        shown = await it.until(round_id, "released", "abandoned", "damaged")
        assert shown["phase"] == "abandoned", shown
        await assert_nothing_published(it, round_id)
        assert await kinds(it) == ["charge"]
        # With Y, one answer would already be half of what must not be published.
        assert await answers_kept(it) == 0


async def test_closing_early_keeps_the_helpers_time(tmp_path: Path) -> None:
    """An operator may end the taking of reports, not the time before which nobody answers."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        status, shown = await it.admin("POST", f"rounds/{round_id}/close")
        assert (status, shown["phase"]) == (200, "closing")
        assert await it.send(d, [1, 9]) == [200, 503]
        assert (await it.admin("POST", f"rounds/{round_id}/close"))[0] == 409
        _, body = await it.get("/v1/rounds")
        assert json.loads(body)["rounds"] == []
        it.clock.reach(d.closes - 5)
        await asyncio.sleep(0.3)
        assert (await it.until(round_id, "closing", "sealed", "released"))["phase"] == "closing"
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
        assert await it.send(d, [1, 9]) == [200, 409]
        shown = await it.until(round_id, "released")
        assert shown["ended"] >= d.closes
        numbers = it.node.metrics.snapshot()
        assert numbers["helper_requests_total|refused"] == 0


async def test_a_store_that_forgets_damages_the_round(tmp_path: Path) -> None:
    """Everything gone in the middle of a round: damaged, said so, and nothing published."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(5))
        store._lanes.clear()
        body = masked(d, 7)
        status, answer = await it.post(round_id, body)
        assert (status, answer["type"]) == (409, "urn:dandelion:problem:round_damaged")
        shown = await it.until(round_id, "damaged", "released", "abandoned")
        assert shown["phase"] == "damaged"
        await assert_nothing_published(it, round_id)
        assert (await it.post(round_id, masked(d, 8)))[0] == 409


async def test_a_store_behind_an_anchor_damages_the_round(tmp_path: Path) -> None:
    """A store that went back in time between two processes is found out at the seal."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(10))
        await it.node.ingest._anchors.flush()
        # Keys, counters and sums go back together: nothing in the store itself disagrees.
        [state] = store._lanes.values()
        epoch = state.epochs[1]
        state.seen = dict(list(state.seen.items())[:4])
        epoch.n, epoch.seq = 4, epoch.seq - 1
        it.clock.reach(d.closes)
        shown = await it.until(round_id, "damaged", "released", "abandoned")
        assert shown["phase"] == "damaged", shown
        assert "behind what was acknowledged" in shown["reason"]


async def test_control_without_anchors_the_loss_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same loss with the anchors unread: only the last gate notices that set and sum differ."""
    monkeypatch.setattr("collector.sealing.losses", lambda *_: 0)
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(10))
        [state] = store._lanes.values()
        state.seen = dict(list(state.seen.items())[:4])
        state.epochs[1].n = 4
        it.clock.reach(d.closes)
        shown = await it.until(round_id, "damaged", "released", "abandoned")
        # Ten vectors under four names: every word is random, and that is noticed before signing.
        assert (shown["phase"], shown["reason"]) == (
            "damaged",
            "set, sum and answers disagree: implausible",
        )
        await assert_nothing_published(it, round_id)


async def test_counts_that_disagree_damage_the_round(tmp_path: Path) -> None:
    """Keys, counters of the epochs and the lane's own count must agree at the seal."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(5))
        [state] = store._lanes.values()
        state.seen.popitem()
        it.clock.reach(d.closes)
        shown = await it.until(round_id, "damaged", "released", "abandoned")
        assert shown["phase"] == "damaged"
        assert shown["reason"] == "keys and sums of lane 0.0 disagree"


@pytest.mark.parametrize("phase", ["open", "closing", "sealed"])
async def test_a_collector_that_restarts_goes_on(tmp_path: Path, phase: str) -> None:
    """Stopped in any phase and started again over the same state, the round comes to its end."""
    store = MemoryStore()
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            round_id, d = await it.open()
            await it.send(d, range(6))
            if phase == "closing":
                await it.admin("POST", f"rounds/{round_id}/close")
            if phase == "sealed":
                them.gates[0].shut()
                it.clock.reach(d.closes)
            await it.until(round_id, phase)
        them.gates[0].open()
        async with them.rig(store) as it:
            if phase == "open":
                # The reports of two incarnations are two sums.
                assert await it.send(d, range(3, 9)) == [200, 200, 200, 201, 201, 201]
            it.clock.reach(d.closes)
            await assert_published(it, round_id, range(9 if phase == "open" else 6))


async def test_a_sealed_round_does_not_need_the_store(tmp_path: Path) -> None:
    """Set and sum are in the database from the seal on: a lost store cannot change them."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(6))
        it.gates[0].shut()
        it.clock.reach(d.closes)
        await it.until(round_id, "sealed")
        store._lanes.clear()
        it.gates[0].open()
        await assert_published(it, round_id, range(6))


class CountingStore(MemoryStore):
    """Notes how often its files were rewritten."""

    def __init__(self) -> None:
        super().__init__()
        self.rewrites = 0
        self.twice = asyncio.Event()

    async def compact(self) -> None:
        self.rewrites += 1
        if self.rewrites == 2:
            self.twice.set()
        await super().compact()


async def test_at_expires_the_store_forgets(tmp_path: Path) -> None:
    """The release stays for ever; keys and sums are purged at `expires`.

    The store's files are rewritten after the seal, for the differences of overwritten sums are
    batches of reports, and after the purge, for the keys.
    """
    store = CountingStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        it.clock.reach(d.closes)
        artefact = await assert_published(it, round_id, range(4))
        await asyncio.sleep(0.2)
        assert store._lanes
        assert store.rewrites == 1
        it.clock.reach(d.expires)
        async with asyncio.timeout(10):
            while store._lanes:
                await asyncio.sleep(0.1)
                await it.get("/livez")
            await store.twice.wait()
        assert await it.send(d, [0]) == [409]
        assert (await it.get(f"/v1/releases/{round_id}")) == (200, artefact)
        assert (await it.get(f"/v1/rounds/{round_id}"))[0] == 200


async def test_two_processes_take_the_reports_of_one_round(
    tmp_path: Path, store: RoundStore
) -> None:
    """An ingest-only process hears of the round through the store and adds to it."""
    async with parties(tmp_path) as them, them.rig(store) as it:
        round_id, d = await it.open()
        async with running(them.config(), first=False, store=store) as other:
            await other.book.refresh()
            first, it.node.public_port = it.node.public_port, other.public_port
            assert await it.send(d, range(10)) == [201] * 10
            it.node.public_port = first
            assert await it.send(d, range(5, 15)) == [200] * 5 + [201] * 5
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(15))


async def test_a_wrong_answer_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer with one bit changed is refused and asked for again; the round then ends well."""
    real, changed = Helper.answer, []

    async def flipping(self: Helper, ctx: bytes, shard: int, bytes_max: int) -> bytes | float:
        found = await real(self, ctx, shard, bytes_max)
        if isinstance(found, bytes) and self.identity not in changed:
            changed.append(self.identity)
            at = len(found) // 2
            return found[:at] + bytes([found[at] ^ 1]) + found[at + 1 :]
        return found

    monkeypatch.setattr(Helper, "answer", flipping)
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
    assert len(changed) == 2


async def test_control_an_unverified_answer_would_be_published_as_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check of answers off, one wrong word reaches the release, which then fails."""

    def unchecked(self: Answer, ask: Ask, party: int, identity: bytes) -> None:
        return None

    real = Helper.answer

    async def flipping(self: Helper, ctx: bytes, shard: int, bytes_max: int) -> bytes | float:
        found = await real(self, ctx, shard, bytes_max)
        if isinstance(found, bytes):
            return found[:110] + bytes([found[110] ^ 1]) + found[111:]
        return found

    monkeypatch.setattr(Answer, "check", unchecked)
    monkeypatch.setattr(Helper, "answer", flipping)
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        it.clock.reach(d.closes)
        shown = await it.until(round_id, "released", "damaged")
        assert shown["phase"] == "damaged"


async def test_a_release_is_stored_once(tmp_path: Path) -> None:
    """A second artefact for a round is refused by the database itself."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        it.clock.reach(d.closes)
        artefact = await assert_published(it, round_id, range(4))
        row = await it.node.database.run(partial(registry.round_row, round_id=d.round_id))
        add = partial(
            registry.add_release,
            row=row,
            artefact=b"other",
            shards=[0],
            summary={"reports": 4},
            now=1,
        )
        with pytest.raises(sqlite3.IntegrityError):
            await it.node.database.run(add)
        assert (await it.get(f"/v1/releases/{round_id}"))[1] == artefact


async def test_a_lane_that_another_process_found_damaged(tmp_path: Path) -> None:
    """What one process sees, the driver hears through the store while the round is open."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        [lane] = store._lanes
        await store.step(lane, LanePhase.DAMAGED)
        shown = await it.until(round_id, "damaged")
        assert shown["reason"] == "lane 0.0 is damaged"
        assert await it.send(d, [1]) == [409]
