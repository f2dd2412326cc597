"""Log lines: JSON, a closed vocabulary of events, a closed list of fields.

Only public values: round ids, shards, counts, tokens of docs/protocol.md section 12. Never a report
key, a bearer token, a root, a peer's address, or the message of an exception, which may quote what
a peer sent. An exception is logged by its type and by where it was raised.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Collection
from types import TracebackType
from typing import Final

_FIELDS: Final = "dandelion_fields"


class EventLog:
    """The log of one service. `events` is all it can say."""

    def __init__(self, service: str, events: Collection[str]) -> None:
        self._logger = logging.getLogger(service)
        self._events = frozenset(events)

    def event(
        self,
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
        if name not in self._events:
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
        self._logger.log(level, name, extra={_FIELDS: kept})


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
        fields: dict[str, object] | None = getattr(record, _FIELDS, None)
        if fields is not None:
            line["event"] = record.getMessage()
            line.update(fields)
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
