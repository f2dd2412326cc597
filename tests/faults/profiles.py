"""The kinds of run, by name. The last ones are controls, which must not pass unnoticed."""

from collections.abc import Mapping
from typing import Final

from dandelion.round import Phase
from tests.faults import faults
from tests.faults.campaign import Profile
from tests.faults.deployment import Setup
from tests.faults.report import Expect

_DAYS_S: Final = 4 * 86_400

PROFILES: Final[Mapping[str, Profile]] = {
    "kill": Profile(Setup(workers=2, shard_bits=1), [faults.kills]),
    "network": Profile(Setup(workers=2), [faults.network]),
    "both": Profile(Setup(workers=2, store="redis", shard_bits=1), [faults.kills, faults.network]),
    "slow": Profile(Setup(workers=2), [faults.kills_behind_slow_syncs]),
    "disk": Profile(
        Setup(workers=2),
        [faults.slow_disks, faults.full_disks],
        # Redis and Valkey end when they cannot keep what they confirm.
        exits=["store"],
    ),
    "stop": Profile(Setup(second=True), [faults.pauses], round_s=(4, 15)),
    "clock": Profile(Setup(second=True, answer_s=_DAYS_S), [faults.clocks]),
    "drain": Profile(Setup(workers=2), [faults.drains], attempts=1),
    "rolling": Profile(Setup(second=True), [faults.drains]),
    "restore": Profile(Setup(workers=2), [faults.restores], allowed=[Phase.DAMAGED]),
    "lossy": Profile(
        Setup(lossy=True, workers=2),
        [faults.kills_behind_slow_syncs],
        allowed=[Phase.DAMAGED],
        expect=Expect.DETECTED,
        round_s=(3, 5),
    ),
    "ack-before-commit": Profile(
        Setup(mutant="ack-before-commit", workers=2),
        [faults.kills_behind_slow_syncs],
        expect=Expect.CAUGHT,
    ),
    "fresh-seq": Profile(
        Setup(mutant="fresh-seq", workers=2), [faults.network], expect=Expect.CAUGHT
    ),
}
