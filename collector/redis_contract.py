"""The start-up contract with Redis: what it confirms, it keeps (docs/protocol.md section 10.4).

With the default configuration Redis loses confirmed writes when it is killed, or evicts them when
memory runs out. The collector refuses to run on such a server unless the operator says that
losses are acceptable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from collector.redis_store import answering
from collector.store import BUCKET_REPORTS_MAX
from dandelion.params import KEY_BYTES
from dandelion.service.identity import StateError

VERSION_MIN: Final = (7, 0)

_EXACT: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_LEAST: Final[Mapping[str, int]] = {
    # Buckets beyond this turn from one block of bytes into a table of ten times the size.
    "hash-max-listpack-entries": BUCKET_REPORTS_MAX,
    "hash-max-listpack-value": KEY_BYTES,
}


class LossyStore(StateError):
    """The server may forget what it confirmed. The message says what to change."""


async def faults(client: Redis) -> list[str]:
    """What must change before the server may be trusted, one sentence each; empty if nothing.

    Raises:
        StoreUnavailable: the server did not answer.
    """
    found = []
    async with answering():
        info = cast("Mapping[str, Any]", await client.info("server"))
        replication = cast("Mapping[str, Any]", await client.info("replication"))
        reply = cast("Mapping[str | bytes, object]", await client.config_get(*_EXACT, *_LEAST))
    settings = {_text(name): _text(value) for name, value in reply.items()}
    version = str(info.get("redis_version", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < VERSION_MIN:
        found.append("the server must be version 7.0 or newer")
    if replication.get("role") != "master":
        found.append("the server is a replica; connect to the primary")
    for name, wanted in _EXACT.items():
        if settings.get(name, "") != wanted:
            found.append(f"set `{name} {wanted}` (it is `{settings.get(name, '')}`)")
    for name, least in _LEAST.items():
        actual = settings.get(name, "")
        if not actual.isdecimal() or int(actual) < least:
            found.append(f"set `{name} {least}` or more (it is `{actual}`)")
    return found


async def require(client: Redis) -> None:
    """Refuses a server that may lose confirmed writes.

    Raises:
        LossyStore: with one sentence per setting to change.
        StoreUnavailable: the server did not answer.
    """
    found = await faults(client)
    if found:
        raise LossyStore(
            "Redis may lose reports that were acknowledged: "
            + "; ".join(found)
            + ". Or set allow_lossy = true to accept losses."
        )


@dataclass(frozen=True)
class RedisInspection:
    """What `health` asks about the server."""

    client: Redis

    async def clock(self) -> float:
        """Unix seconds by the server's clock. Raises `StoreUnavailable`."""
        async with answering():
            seconds, micros = await self.client.time()
        return int(seconds) + int(micros) / 1e6

    async def faults(self) -> list[str]:
        """As `faults`."""
        return await faults(self.client)


async def gauges(client: Redis) -> dict[str, int]:
    """What the operator watches: memory in bytes, and fsyncs that came late."""
    async with answering():
        info = cast("Mapping[str, Any]", await client.info("everything"))
    return {
        "memory_bytes": int(info.get("used_memory", 0)),
        "aof_delayed_fsync": int(info.get("aof_delayed_fsync", 0)),
    }


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value if value is not None else "")
