"""Controls: the same driver over a store that loses, and over a collector that is broken.

Faults that nobody would notice prove nothing; these are noticed.
"""

import asyncio

import pytest

from tests.faults import faults
from tests.faults.campaign import Profile, trial
from tests.faults.deployment import Setup
from tests.faults.proxies import Fault
from tests.faults.report import Expect, Report


async def killed_behind_slow_syncs(name: str, profile: Profile, *victims: str) -> Report:
    """Takes reports while the store's disk hardly keeps up, then kills the victims at once."""
    async with trial(name, 1, profile) as run:
        assert await run.open(4, 200)
        await run.acked(20)
        run.it.controls["store"].slow_syncs(1.5)
        await run.acked(run.acknowledged + 20)
        await asyncio.sleep(0.5)
        for victim in victims:
            faults.kill(run, victim)
        return await run.finish()


async def test_slow_syncs_lose_nothing() -> None:
    """A store that syncs before it confirms, on a disk that takes 1.5 s: nothing is lost."""
    report = await killed_behind_slow_syncs("slow", Profile(), "everything")
    assert report.passed, str(report)


@pytest.mark.parametrize("victims", [("store",), ("store", "collector")])
async def test_control_a_store_that_syncs_later_is_found_out(victims: tuple[str, ...]) -> None:
    """With `everysec` confirmed reports are lost; the round ends damaged, and nothing is released.

    A collector that lives sees the gap in its numbers; one that died as well has left an anchor.
    """
    profile = Profile(Setup(lossy=True), expect=Expect.DETECTED)
    report = await killed_behind_slow_syncs("lossy", profile, *victims)
    assert report.passed, str(report)


async def test_control_acknowledging_before_the_commit_is_caught() -> None:
    """Told yes before anything is stored, then everything is killed: the oracle misses them."""
    profile = Profile(Setup(mutant="ack-before-commit"), expect=Expect.CAUGHT)
    report = await killed_behind_slow_syncs("ack", profile, "everything")
    assert report.verdicts.faults.get("I1"), str(report)


async def test_control_a_fresh_number_for_an_unknown_outcome_is_caught() -> None:
    """Replies get lost, and the commit is repeated as another one: set and sum disagree."""
    profile = Profile(Setup(mutant="fresh-seq"), expect=Expect.CAUGHT)
    async with trial("seq", 1, profile) as run:
        assert await run.open(3, 150)
        run.it.weather["store"].shares = {Fault.DROP_REPLY: 0.1}
        await run.sent()
        report = await run.finish()
    assert report.passed, str(report)
