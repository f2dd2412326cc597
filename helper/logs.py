"""The helper's log: what it can say. How it is written is `dandelion.service.logs`."""

from typing import Final

from dandelion.service.logs import EventLog

EVENTS: Final = frozenset(
    {
        "answer_failed",  # a computation ended without an answer; nothing was consumed
        "answer_stored",
        "ask_accepted",
        "descriptor_signed",
        "internal",  # our fault
        "listening",
        "refused",
        "reservation_freed",
        "root_erased",
        "root_lost",  # a record's root was not there to erase: something was restored
        "root_unrecorded",  # a marked root has no record: the database was restored
        "started",
        "stopped",
        "stopping",
        "store_failed",
    }
)

event: Final = EventLog("helper", EVENTS).event
