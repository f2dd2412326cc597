"""kill -9 of every process at the moments that matter, and a network that loses what it carries.

Real processes, real HTTP, masks and noise; each client owns a coordinate, so the release says who
was counted. A failing run prints its seed and keeps its logs.
"""

import asyncio

from tests.faults import faults
from tests.faults.campaign import Profile, campaign, trial
from tests.faults.deployment import Setup


async def test_kills_and_a_lossy_network() -> None:
    """Processes die and packets get lost for a while; afterwards every invariant holds."""
    profile = Profile(Setup(workers=2, shard_bits=1), [faults.kills, faults.network])
    report = await campaign("both", 4, profile, 10)
    assert report.passed, str(report)


async def test_kills_at_the_seal_at_an_ask_and_at_an_answer() -> None:
    """Killed while sets are fixed, while a helper is asked, while answers arrive: one release."""
    async with trial("moments", 1, Profile(Setup(slots=64))) as run:
        for _ in range(3):
            assert await run.open(2, 40)
        for moment, victim in (
            ("seal", "everything"),
            ("ask", "helper-1"),
            ("answer", "collector"),
        ):
            await asyncio.wait_for(run.it.moments.next(moment), 30)
            faults.kill(run, victim)
        report = await run.finish()
    assert report.passed, str(report)
    assert report.injected.total() == 6
