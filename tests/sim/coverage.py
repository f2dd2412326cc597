"""What a campaign must have reached to mean anything: counters by name, and those that are 0."""

from collections import Counter
from typing import Final

# Each is (what it is called, counters of which one at least must not be 0).
REACHED: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("a collector killed", ("kill_c",)),
    ("a helper killed", ("kill_h",)),
    ("the store killed", ("kill_s",)),
    ("a process killed before its commit", ("died_at_commit",)),
    ("a process killed between commit and news of it", ("died_at_commit_done",)),
    ("a helper killed between commit and reply", ("died_h_commit_done",)),
    ("a process killed between two steps of a file", ("died_at_fsync", "died_at_fsync_done")),
    ("a process killed upon something it logged", ("kill_at_event",)),
    ("a collector cut off while a round closes", ("cut_at_close",)),
    ("a collector drained", ("drain_c",)),
    ("a helper drained", ("drain_h",)),
    ("a process stopped for half a minute", ("pause_long",)),
    ("a collector stopped for a while", ("pause_c",)),
    ("a helper stopped for a while", ("pause_h",)),
    ("the store stopped for a while", ("pause_s",)),
    ("a partition", ("partition",)),
    ("a clock that jumps", ("clock",)),
    ("a full disk", ("disk_full",)),
    ("a store that ended over its full disk", ("store_disk_full",)),
    ("an old copy of the store", ("rollback",)),
    ("a request to the store lost", ("store_drop_request",)),
    ("a reply of the store lost", ("store_drop_reply",)),
    ("a call that the store runs after its caller gave up", ("store_late_call",)),
    ("a call that the store runs after its caller died", ("store_zombie_call",)),
    ("a request over HTTP lost", ("net_drop_request",)),
    ("an answer over HTTP lost", ("net_drop_reply",)),
    ("a slow message", ("net_slow",)),
    ("a report accepted", ("client_accepted_",)),
    ("a report acknowledged a second time", ("client_duplicate_",)),
    ("a report that came too late", ("client_rejected_round_closed",)),
    ("two reports under one key", ("client_rejected_report_conflict",)),
    ("a report into a damaged round", ("client_rejected_round_damaged",)),
    ("a client that gave up", ("client_lapsed_",)),
    ("a commit repeated after it had happened", ("commit_already",)),
    ("a commit with a key that is taken", ("commit_dup",)),
    ("a commit into a full lane", ("commit_full",)),
    ("a commit after the seal", ("commit_sealed",)),
    ("a commit that showed a loss", ("commit_lost",)),
    ("a loss that an anchor or a count showed at the seal", ("damage_at_seal",)),
    ("a round released", ("round_released",)),
    ("a round abandoned", ("round_abandoned",)),
    ("a round damaged", ("round_damaged",)),
    ("two rounds at once", ("two_rounds",)),
    ("a round in two shards", ("two_shards",)),
    ("one key through two collectors", ("two_collectors",)),
    ("a round purged", ("log_c_purged",)),
    ("a reservation freed", ("log_h_reservation_freed",)),
)


def missing(seen: Counter[str]) -> list[str]:
    """What was not reached."""
    return [name for name, counters in REACHED if not any(seen[it] for it in counters)]


def table(seen: Counter[str]) -> str:
    """All of it, for people."""
    return "\n".join(
        f"    {sum(seen[it] for it in counters):8}  {name}" for name, counters in REACHED
    )
