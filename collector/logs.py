"""Log lines: JSON, a closed vocabulary of events, a closed list of fields.

Only public values: round ids, shards, counts, tokens of docs/protocol.md section 12. Never a report
key, a bearer token, an address, or the message of an exception, which may quote what a client sent.
An exception is logged by its type and by where it was raised.
"""

import json
import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Final

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

_logger: Final = logging.getLogger("collector")


def event(
    name: str,
    *,
    round_id: bytes | None = None,
    shard: int | None = None,
    n: int | None = None,
    token: str | None = None,
    reason: str | None = None,
    address: str | None = None,
    error: BaseException | None = None,
) -> None:
    """Logs one event. `address` is one of ours.

    Raises:
        KeyError: an event outside the vocabulary, which is a bug.
    """
    if name not in EVENTS:
        raise KeyError(name)
    fields: dict[str, object] = {
        "round": round_id.hex() if round_id is not None else None,
        "shard": shard,
        "n": n,
        "token": token,
        "reason": reason,
        "address": address,
    }
    if error is not None:
        fields["error"] = type(error).__name__
        fields["at"] = place_of(error.__traceback__)
    level = logging.ERROR if error is not None else logging.INFO
    kept = {key: value for key, value in fields.items() if value is not None}
    _logger.log(level, name, extra={"fields": kept})


def place_of(trace: TracebackType | None) -> str:
    """Where an exception was raised: file and line of the innermost frames, outermost first."""
    frames = traceback.extract_tb(trace)[-4:]
    return " ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames)


class JsonFormatter(logging.Formatter):
    """One line per record. Of other packages' records only logger, level and exception type."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
        }
        if record.name == _logger.name:
            line["event"] = record.getMessage()
            line.update(getattr(record, "fields", {}))
        else:
            line["logger"] = record.name
            if record.exc_info and record.exc_info[0]:
                line["error"] = record.exc_info[0].__name__
                line["at"] = place_of(record.exc_info[2])
        return json.dumps(line, separators=(",", ":"))


def to_stderr() -> None:
    """Sends every record of the process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
