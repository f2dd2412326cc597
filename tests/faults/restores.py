"""Stories of machines restored from copies of some time ago (docs/protocol.md section 11.3)."""

import asyncio
import json

import aiohttp

from collector.anchors import INTERVAL_S
from dandelion.messages import Ask
from dandelion.params import MEDIA_ASK, PROBLEM_TYPE_PREFIX
from dandelion.round import Phase
from dandelion.service.identity import read_seed
from helper.app import DATABASE
from tests.faults import faults
from tests.faults.campaign import Profile, Run, trial
from tests.faults.clients import Crowd
from tests.faults.deployment import Deployment, Setup
from tests.faults.oracle import RoundRecord
from tests.faults.report import Expect
from tests.faults.stories import LOST, opened, story


@story
async def a_restored_store_damages_its_rounds() -> None:
    """A copy from before half of the acknowledgements: the round ends damaged, unreleased."""
    async with trial("restored", 1, Profile(allowed=LOST, expect=Expect.DETECTED)) as run:
        record = await opened(run, 7, 200)
        await run.acked(20)
        copy = await faults.copied(run, "store")
        await run.acked(run.acknowledged + 20)
        await faults.restored(run, "store", copy)
        report = await run.finish()
    assert report.passed, str(report)
    assert record.phases[-1] is Phase.DAMAGED, str(report)


@story
async def an_anchor_tells_what_nobody_alive_remembers() -> None:
    """As before, but the collector dies as well: what it had acknowledged stands in its anchors."""
    async with trial("anchors", 1, Profile(allowed=LOST, expect=Expect.DETECTED)) as run:
        record = await opened(run, 8, 200)
        await run.acked(20)
        copy = await faults.copied(run, "store")
        await run.acked(run.acknowledged + 20)
        # Anchors are written at most once a second.
        await asyncio.sleep(INTERVAL_S + 0.5)
        await run.it.services["collector"].down()
        await faults.restored(run, "store", copy)
        report = await run.finish()
    assert report.passed, str(report)
    assert record.reason.endswith("is behind what was acknowledged"), str(report)


@story
async def a_restored_collector_releases_the_same_bytes() -> None:
    """Its state from while the round was open: the same set, the same asks, the same artefact."""
    async with trial("restored collector", 1, Profile()) as run:
        record = await opened(run, 4, 60)
        await run.acked(20)
        copy = await faults.copied(run, "collector")
        await released(run, record)
        assert len(record.artefacts) == 1
        await faults.restored(run, "collector", copy)
        # It is open again, and nobody minds.
        record.phases.clear()
        report = await run.finish()
    assert report.passed, str(report)


@story
async def a_restored_helper_answers_no_second_set() -> None:
    """Its database from before the answer: refused. With its roots as well it would answer."""
    async with trial("restored helper", 1, Profile(Setup(slots=64))) as run:
        record = await opened(run, 4, 40)
        assert record.crowd is not None
        await run.acked(20)
        copy = await faults.copied(run, "helper-1")
        await released(run, record)
        second = second_ask(run.it, record.crowd)
        assert await token_of(run.it, second) == "set_conflict"
        await faults.restored(run, "helper-1", copy, DATABASE)
        assert await token_of(run.it, second) == "key_gone"
        # The control: this is why roots must never be in a backup.
        await faults.restored(run, "helper-1", copy)
        assert await token_of(run.it, second) == ""


async def released(run: Run, record: RoundRecord) -> None:
    """Waits until a round is released and was read."""
    async with asyncio.timeout(30):
        while not record.artefacts:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)


def second_ask(it: Deployment, crowd: Crowd) -> Ask:
    """What a collector that went bad would ask next: the same set without one of its members."""
    d, keys = crowd.d, sorted(member.epk for member in crowd.members if member.acked)
    seed = read_seed(it.state("collector"))
    return Ask.create(d.ctx, 0, b"".join(keys[1:]), bytes(d.payload_bytes), seed)


async def token_of(it: Deployment, ask: Ask) -> str:
    """Asks helper 1; the token of its refusal, empty if it agrees."""
    token = (it.folder / "helper-1.token").read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MEDIA_ASK}
    url = f"http://helper/v1/rounds/{ask.ctx.hex()}/shards/{ask.shard}/ask"
    connector = aiohttp.UnixConnector(str(it.state("helper-1") / "s"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=ask.encode(), headers=headers) as response,
    ):
        if response.status == 202:
            return ""
        kind: str = json.loads(await response.read())["type"]
        return kind.removeprefix(PROBLEM_TYPE_PREFIX)
