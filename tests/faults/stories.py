"""Stories of faults, each a deployment of real processes with one thing done to it.

A story raises `AssertionError` with the whole report if something is lost, counted twice or
answered twice. `test_stories` runs them, some at the same time, since they mostly wait.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from dandelion.round import Phase
from tests.faults import faults
from tests.faults.campaign import Profile, Run, campaign, trial
from tests.faults.deployment import Setup
from tests.faults.oracle import RoundRecord
from tests.faults.proxies import Fault
from tests.faults.report import Expect, Report

Story = Callable[[], Awaitable[None]]
STORIES: Final[dict[str, Story]] = {}
_DAYS_S: Final = 4 * 86_400
LOST: Final = (Phase.DAMAGED,)


def story(function: Story) -> Story:
    """Puts a story on the list."""
    STORIES[function.__name__] = function
    return function


@story
async def kills_and_a_lossy_network() -> None:
    """Processes die and packets get lost for a while; afterwards every invariant holds."""
    profile = Profile(Setup(workers=2, shard_bits=1), [faults.kills, faults.network])
    report = await campaign("both", 4, profile, 8)
    assert report.passed, str(report)


@story
async def kills_at_the_seal_at_an_ask_and_at_an_answer() -> None:
    """Killed while sets are fixed, while a helper is asked, while answers arrive: one release."""
    async with trial("moments", 1, Profile(Setup(slots=64))) as run:
        for _ in range(3):
            await opened(run, 2, 40)
        for moment, victim in (
            ("seal", "everything"),
            ("ask", "helper-1"),
            ("answer", "collector"),
        ):
            await asyncio.wait_for(run.it.moments.next(moment), 30)
            faults.kill(run, victim)
        report = await run.finish()
    assert report.passed, str(report)
    assert report.injected.total() == 6, str(report)


@story
async def slow_syncs_lose_nothing() -> None:
    """A store that syncs before it confirms, on a disk that takes 1 s, is killed with all else."""
    report = await killed_behind_slow_syncs("slow", Profile(), "everything")
    assert report.passed, str(report)


@story
async def control_a_store_that_syncs_later_is_found_out() -> None:
    """With `everysec` the same kill loses confirmed reports: the round ends damaged, unreleased."""
    profile = Profile(Setup(lossy=True), allowed=LOST, expect=Expect.DETECTED)
    report = await killed_behind_slow_syncs("lossy", profile, "store")
    assert report.passed, str(report)


@story
async def control_acknowledging_before_the_commit_is_caught() -> None:
    """Told yes before anything is stored, then everything is killed: the oracle misses them."""
    profile = Profile(Setup(mutant="ack-before-commit"), expect=Expect.CAUGHT)
    report = await killed_behind_slow_syncs("ack", profile, "everything")
    assert report.verdicts.faults.get("I1"), str(report)


@story
async def control_a_fresh_number_for_an_unknown_outcome_is_caught() -> None:
    """Replies get lost, and the commit is repeated as another one: set and sum disagree."""
    profile = Profile(Setup(mutant="fresh-seq"), expect=Expect.CAUGHT)
    async with trial("seq", 1, profile) as run:
        await opened(run, 3, 150)
        run.it.weather["store"].shares = {Fault.DROP_REPLY: 0.1}
        await asyncio.sleep(4)
        report = await run.finish()
    assert report.passed, str(report)


@story
async def a_full_disk_of_the_store_stops_the_yes() -> None:
    """503 and not ready while nothing can be kept; with room again the same clients are served."""
    async with trial("full", 1, Profile(exits=["store"])) as run:
        crowd = (await opened(run, 7, 150)).crowd
        assert crowd is not None
        await run.acked(20)
        run.it.controls["store"].fill_disk(100)
        await readiness(run, 503)
        accepted, refused = crowd.answers["accepted"], crowd.answers["store_unavailable"]
        await asyncio.sleep(1)
        assert crowd.answers["accepted"] == accepted
        assert crowd.answers["store_unavailable"] > refused
        assert run.it.controls["store"].refused > 0
        run.it.controls["store"].fill_disk(-1)
        await run.acked(accepted + 20)
        await readiness(run, 200)
        run.injected["full disk"] += 1
        report = await run.finish()
    assert report.passed, str(report)


@story
async def a_full_disk_of_the_collector_and_of_a_helper_delays_a_round() -> None:
    """No seal and no answer that could not be kept; both come when there is room again."""
    async with trial("full disks", 1, Profile()) as run:
        record = await opened(run, 2, 60)
        await run.acked(10)
        collector, helper = run.it.controls["collector"], run.it.controls["helper-1"]
        collector.fill_disk(100)
        assert "disk_full" in await readiness(run, 503)
        await after(run, record)
        assert record.phases[-1] in (Phase.OPEN, Phase.CLOSING)
        helper.fill_disk(100)
        collector.fill_disk(-1)
        await asyncio.wait_for(run.it.moments.next("ask"), 20)
        await asyncio.sleep(1)
        assert collector.refused > 0
        assert helper.refused > 0
        assert not record.ended
        run.injected["full disk"] += 2
        report = await run.finish()
    assert report.passed, str(report)


@story
async def clocks_that_jump_fix_no_set_early() -> None:
    """An hour ahead, a day behind, five seconds back: late perhaps, never before `closes`."""
    profile = Profile(Setup(second=True, answer_s=_DAYS_S))
    async with trial("clocks", 1, profile) as run:
        first = await opened(run, 4, 60)
        await run.acked(5)
        run.it.controls["collector"].shift_clock(3_600)
        assert "clock_differs" in await readiness(run, 503)
        assert first.crowd is not None
        # The collector thinks that the round is over; the helpers know better.
        while time.time() < first.crowd.d.closes - 0.5:
            assert not first.artefacts
            await asyncio.sleep(0.1)
        run.it.controls["collector"].shift_clock(0)
        second = await opened(run, 2, 60)
        run.it.controls["helper-2"].shift_clock(-86_400)
        await faults.jump(run, run.it.collectors, -5, 0.5)
        await faults.jump(run, ["store"], 86_400, 0.5)
        await after(run, second)
        assert not second.ended
        run.injected["clock"] += 2
        report = await run.finish()
    assert report.passed, str(report)


@story
async def a_stopped_replica_changes_nothing_when_it_wakes() -> None:
    """SIGSTOP while another works, SIGCONT after the seal: what it still held is refused."""
    async with trial("stopped", 1, Profile(Setup(second=True))) as run:
        record = await opened(run, 3, 150)
        await run.acked(20)
        run.it.services["collector-2"].signal(signal.SIGSTOP)
        await run.acked(run.acknowledged + 10)
        await after(run, record)
        async with asyncio.timeout(20):
            while not record.ended:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.1)
        run.it.services["collector-2"].signal(signal.SIGCONT)
        run.injected["SIGSTOP"] += 1
        report = await run.finish()
    assert report.passed, str(report)


@story
async def stopping_one_after_the_other_leaves_nobody_without_an_answer() -> None:
    """SIGTERM under load, three times over two processes: whoever is counted was told so."""
    async with trial("rolling", 1, Profile(Setup(second=True), attempts=1)) as run:
        for name in ("collector-2", "collector", "collector-2"):
            await opened(run, 4, 150)
            await run.acked(run.acknowledged + 10)
            await faults.drain(run, name)
        report = await run.finish()
    assert report.passed, str(report)


async def killed_behind_slow_syncs(name: str, profile: Profile, *victims: str) -> Report:
    """Takes reports while the store's disk hardly keeps up, then kills the victims at once."""
    async with trial(name, 1, profile) as run:
        await opened(run, 5, 200)
        await run.acked(20)
        run.it.controls["store"].slow_syncs(1.0)
        await run.acked(run.acknowledged + 20)
        await asyncio.sleep(1.2)
        for victim in victims:
            faults.kill(run, victim)
        return await run.finish()


async def opened(run: Run, duration_s: int, clients: int) -> RoundRecord:
    """Opens a round, which nothing hinders yet, with its clients."""
    record = await run.open(duration_s, clients)
    assert record is not None
    return record


async def after(run: Run, record: RoundRecord) -> None:
    """Waits until a round should have been sealed and released, were it not for a fault."""
    assert record.crowd is not None
    await asyncio.sleep(max(0.0, record.crowd.d.closes + 1.5 - time.time()))


async def readiness(run: Run, status: int, seconds: float = 20) -> list[str]:
    """Waits until the collector says that it is ready, 200, or not, 503; its reasons."""
    async with asyncio.timeout(seconds):
        while True:
            found, reasons = await run.it.readiness()
            if found == status:
                return reasons
            await asyncio.sleep(0.1)
