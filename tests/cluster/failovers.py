"""Failovers while a round is taken, drawn from a seed; what must hold whatever is drawn.

Every acknowledged report is in the release once and nothing else is, or there is no release and the
round is `damaged`. Damage is allowed only where commits wait for no replica.
"""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from collector.anchors import INTERVAL_S
from tests.cluster.rounds import CLIENTS, ClusterRound, cluster_round
from tests.cluster.servers import ClusterServers, until

KINDS = ("dies", "is replaced at once", "hands over")
PHASES = frozenset({"released", "damaged"})


@dataclass(frozen=True)
class Plan:
    """What happens to a round. `at` and `behind` are numbers of acknowledged reports."""

    seed: int
    replicas: int
    kind: str
    at: int
    behind: int
    lane: int
    with_worker: bool

    @classmethod
    def draw(cls, seed: int) -> "Plan":
        """The plan of a seed."""
        rng = random.Random(seed)
        return cls(
            seed=seed,
            replicas=rng.choice((0, 0, 1)),
            kind=rng.choice(KINDS),
            at=rng.randrange(CLIENTS // 2),
            # How many reports a replica that is cut off first misses; 0 if it is in step.
            behind=rng.choice((0, 1, rng.randrange(2, CLIENTS // 3))),
            lane=rng.randrange(4),
            with_worker=rng.random() < 0.4,
        )


async def play(folder: Path, servers: ClusterServers, plan: Plan) -> str:
    """Takes a round through the plan; its last phase.

    Raises:
        AssertionError: something that must hold does not.
    """
    async with cluster_round(folder, servers, plan.replicas) as taking:
        sending = asyncio.create_task(taking.send(range(CLIENTS)))
        try:
            await taking.has(plan.at)
            await _trouble(taking, servers, plan)
            phase = await _end(taking, sending)
        finally:
            sending.cancel()
    assert phase in PHASES, phase
    assert phase == "released" or plan.replicas == 0, taking.reason
    return phase


async def _trouble(taking: ClusterRound, servers: ClusterServers, plan: Plan) -> None:
    master = taking.holder(taking.lanes[plan.lane])
    replica = servers.replica_of(master)
    if plan.kind == "hands over":
        await asyncio.to_thread(servers.hand_over, master)
        if plan.with_worker:
            taking.kill_worker()
        return
    if plan.behind:
        replica.cut_off()
        if plan.replicas == 0:
            await taking.has(min(CLIENTS, plan.at + plan.behind))
            if plan.with_worker:
                # What a process acknowledged in its last second before it died with its master is
                # known to nobody; only waiting for replicas closes that.
                await asyncio.sleep(1.5 * INTERVAL_S)
        else:
            # Nothing is acknowledged on these lanes any more; the others go on.
            await asyncio.sleep(0.2)
    if plan.with_worker:
        taking.kill_worker()
    if plan.kind == "is replaced at once":
        await asyncio.to_thread(servers.replace, master)
    else:
        master.kill()
        replica.client.config_set("masterauth", "")
        await asyncio.to_thread(until, lambda: servers.has_taken_over(replica), "no failover")
    await asyncio.to_thread(master.start)


async def _end(taking: ClusterRound, sending: "asyncio.Task[None]") -> str:
    """Everybody is told, or the round is damaged before; then it is closed."""
    while not sending.done():
        _, shown = await taking.it.admin("GET", f"rounds/{taking.id}")
        if shown["phase"] == "damaged":
            break
        await asyncio.wait({sending}, timeout=0.1)
    else:
        await sending
    phase = await taking.finish()
    await sending
    return phase
