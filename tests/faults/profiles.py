"""The kinds of run, by name."""

from collections.abc import Mapping
from typing import Final

from tests.faults import faults
from tests.faults.campaign import Profile
from tests.faults.deployment import Setup

PROFILES: Final[Mapping[str, Profile]] = {
    "kill": Profile(Setup(workers=2, shard_bits=1), [faults.kills]),
    "network": Profile(Setup(workers=2), [faults.network]),
    "both": Profile(Setup(workers=2, store="redis", shard_bits=1), [faults.kills, faults.network]),
}
