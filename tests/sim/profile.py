"""What one seed goes through: size, rounds and faults, drawn before anything runs.

Swarm testing: most seeds have most kinds of fault switched off, so that those they have can do
their work. A profile is data: it prints itself, and a test may write one by hand.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

DAY_S = 86_400.0
HOUR_S = 3_600.0

# What a nemesis may do now and then while faults last.
ACTIONS = (
    "kill_collector",
    "kill_helper",
    "kill_store",
    "kill_at_disk",
    "kill_at_event",
    "drain",
    "pause",
    "partition",
    "cut_at_close",
    "clock",
    "disk_full",
    "rollback",
)
# The links on which messages may be late or lost: clients to collectors, and collectors to others.
LINKS = ("ck", "cs", "ch")


@dataclass(frozen=True)
class Trouble:
    """Faults of one kind of link. Probabilities per message; `slow_s` in seconds."""

    slow: float = 0.0
    slow_s: float = 0.0
    drop_request: float = 0.0
    drop_reply: float = 0.0


@dataclass(frozen=True)
class Profile:
    """A scenario and its faults. Times in virtual seconds.

    Attributes:
        cohort: `roomy` takes everybody, `full` fewer than come, `small` needs more than come.
        twins: clients whose report is sent by two devices at once, byte for byte the same.
        liars: clients with two different reports under one key.
        actions: kinds of fault that the nemesis chooses from, and seconds between two of them.
        jumps_s: how far clocks may be off while they are.
        answer_s: from the end of a round to its expiry.
        purge: whether the run goes on until the rounds are purged.
    """

    collectors: int = 1
    clients: int = 8
    rounds: int = 1
    shard_bits: int = 0
    open_s: int = 4
    fault_s: float = 0.0
    answer_s: int = 45
    cohort: Literal["roomy", "full", "small"] = "roomy"
    twins: int = 0
    liars: int = 0
    policy: Literal["always", "everysec"] = "always"
    shuffled: bool = True
    actions: tuple[str, ...] = ()
    every_s: float = 1.0
    down_s: float = 1.0
    jumps_s: tuple[float, ...] = ()
    disk_s: float = 0.0005
    trouble: dict[str, Trouble] = field(default_factory=dict)
    purge: bool = False

    @property
    def lossy(self) -> bool:
        """Whether the store may forget what it has confirmed."""
        return "rollback" in self.actions or (
            self.policy == "everysec" and "kill_store" in self.actions
        )

    def text(self) -> str:
        """All options, one line each."""
        return "\n".join(f"    {name} = {value!r}" for name, value in asdict(self).items())

    @classmethod
    def draw(cls, seed: int) -> "Profile":
        """The profile of a seed."""
        rng = random.Random(f"profile {seed}")
        calm = rng.random() < 0.05
        actions = [] if calm else [it for it in ACTIONS if rng.random() < _LIKELY.get(it, 0.3)]
        trouble = {} if calm else {it: _trouble(rng) for it in LINKS if rng.random() < 0.5}
        lossy_policy = rng.random() < 0.25
        # Long enough for a process that is stopped for half a minute to go on while faults last.
        long = rng.random() < 0.08
        jumps = (HOUR_S, -HOUR_S, DAY_S, -DAY_S, -5.0, 5.0)
        return cls(
            collectors=_pick(rng, (1, 2, 2, 3)),
            clients=rng.randint(8, 24),
            rounds=_pick(rng, (1, 1, 1, 2)),
            shard_bits=_pick(rng, (0, 0, 0, 1)),
            open_s=rng.randint(3, 6),
            fault_s=0.0 if calm else rng.uniform(30, 38) if long else rng.uniform(4, 12),
            answer_s=75 if long else 45,
            cohort=_pick(rng, ("roomy", "roomy", "roomy", "full", "full", "small")),
            twins=rng.randint(0, 3),
            liars=rng.randint(0, 2),
            policy="everysec" if lossy_policy else "always",
            shuffled=rng.random() < 0.7,
            actions=tuple(actions),
            every_s=_pick(rng, (0.3, 0.7, 1.5)),
            down_s=_pick(rng, (0.2, 1.0, 3.0)),
            jumps_s=tuple(rng.sample(jumps, 2)) if "clock" in actions else (),
            disk_s=_pick(rng, (0.0002, 0.0005, 0.02)),
            trouble=trouble,
            purge=rng.random() < 0.15,
        )


_LIKELY = {"rollback": 0.2, "clock": 0.15, "pause": 0.25, "disk_full": 0.25, "kill_at_event": 0.4}


def _trouble(rng: random.Random) -> Trouble:
    some = (0.0, 0.0, 0.02, 0.1)
    return Trouble(
        slow=_pick(rng, (0.0, 0.05, 0.3)),
        slow_s=_pick(rng, (0.05, 1.0, 8.0)),
        drop_request=_pick(rng, some),
        drop_reply=_pick(rng, some),
    )


def _pick(rng: random.Random, options: Sequence):  # type: ignore[no-untyped-def,type-arg]
    return options[int(rng.random() * len(options))]
