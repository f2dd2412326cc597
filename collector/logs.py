"""The collector's log: what it can say. How it is written is `dandelion.service.logs`."""

from typing import Final

from dandelion.service.logs import EventLog

EVENTS: Final = frozenset(
    {
        "answer_refused",  # a helper's answer does not belong to its ask
        "committer_failed",
        "helper_unavailable",
        "internal",  # our fault
        "listening",
        "purged",
        "query_added",
        "round_abandoned",
        "round_closing",
        "round_damaged",
        "round_opened",
        "round_released",
        "round_sealed",
        "round_withdrawn",  # listed in the store, and not in this database
        "started",
        "stopped",
        "stopping",
        "store_lossy",  # allow_lossy is on and the store may forget
        "store_lost",
        "store_unavailable",
        "worker_ended",
        "worker_started",
    }
)

event: Final = EventLog("collector", EVENTS).event
