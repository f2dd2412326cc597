"""The start-up contract with Redis: what it confirms, it keeps (docs/protocol.md section 10.4).

With the default configuration Redis loses confirmed writes when it is killed, or evicts them when
memory runs out. The collector refuses to run on such a server unless the operator says that
losses are acceptable. Of a cluster every server is asked, replicas too: each may be a master soon.

Not asked of a cluster, because nothing can be lost or falsified by either value:
`cluster-require-full-coverage` (whether lanes on other masters go on while one is down) and
`min-replicas-to-write` (commits wait for replicas themselves).
"""

import asyncio
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis

from collector.redis_cluster import Cluster, Node
from collector.redis_store import answering
from collector.store import BUCKET_REPORTS_MAX, StoreUnavailable
from dandelion.params import KEY_BYTES
from dandelion.service.identity import StateError

VERSION_MIN: Final = (7, 0)

_EXACT: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_CLUSTER_EXACT: Final[Mapping[str, str]] = {
    # A master that was cut off would go on telling clients what is stored and what is not.
    "cluster-allow-reads-when-down": "no",
}
_LEAST: Final[Mapping[str, int]] = {
    # Buckets beyond this turn from one block of bytes into a table of ten times the size.
    "hash-max-listpack-entries": BUCKET_REPORTS_MAX,
    "hash-max-listpack-value": KEY_BYTES,
}


class LossyStore(StateError):
    """The server may forget what it confirmed. The message says what to change."""


async def faults(client: Redis | Cluster) -> list[str]:
    """What must change before the server may be trusted, one sentence each; empty if nothing.

    A replica of a cluster that does not answer is passed over: it confirms nothing now.

    Raises:
        StoreUnavailable: the server, or a master of the cluster, did not answer.
    """
    if isinstance(client, Redis):
        return await _server_faults(client, _EXACT, primary=True)
    async with answering():
        masters = await client.masters()
        replicas = await client.replicas_known()
    found = []
    for node in [*masters, *replicas]:
        try:
            of_node = await _server_faults(
                client.client(node), {**_EXACT, **_CLUSTER_EXACT}, primary=False
            )
        except StoreUnavailable:
            if node in masters:
                client.forget()
                raise
        else:
            found += [f"{node}: {text}" for text in of_node]
    return found


async def _server_faults(client: Redis, exact: Mapping[str, str], *, primary: bool) -> list[str]:
    found = []
    async with answering():
        info = cast("Mapping[str, Any]", await client.info("server"))
        replication = cast("Mapping[str, Any]", await client.info("replication"))
        reply = cast("Mapping[str | bytes, object]", await client.config_get(*exact, *_LEAST))
    settings = {_text(name): _text(value) for name, value in reply.items()}
    version = str(info.get("redis_version", ""))
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < VERSION_MIN:
        found.append("the server must be version 7.0 or newer")
    if primary and replication.get("role") != "master":
        found.append("the server is a replica; connect to the primary")
    for name, wanted in exact.items():
        if settings.get(name, "") != wanted:
            found.append(f"set `{name} {wanted}` (it is `{settings.get(name, '')}`)")
    for name, least in _LEAST.items():
        actual = settings.get(name, "")
        if not actual.isdecimal() or int(actual) < least:
            found.append(f"set `{name} {least}` or more (it is `{actual}`)")
    return found


async def lonely(cluster: Cluster) -> list[Node]:
    """Masters with fewer replicas in step than a commit waits for: nothing would be confirmed.

    Raises:
        StoreUnavailable: a master did not answer.
    """
    found = []
    async with answering():
        for node in await cluster.masters():
            info = cast("Mapping[str, Any]", await cluster.client(node).info("replication"))
            states = [value for name, value in info.items() if re.fullmatch(r"slave\d+", name)]
            if sum(state.get("state") == "online" for state in states) < cluster.replicas:
                found.append(node)
    return found


async def require(client: Redis | Cluster) -> None:
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
    if isinstance(client, Cluster) and (few := await lonely(client)):
        raise LossyStore(
            f"replicas_acknowledge = {client.replicas}, and fewer replicas are in step with "
            + ", ".join(str(node) for node in few)
        )


@dataclass(frozen=True)
class RedisInspection:
    """What `health` asks about the server."""

    client: Redis | Cluster

    async def clock(self) -> float:
        """Unix seconds by the server's clock; of a cluster the one that is furthest from most.

        Raises:
            StoreUnavailable: the server, or a master, did not answer.
        """
        async with answering():
            if isinstance(self.client, Redis):
                return await _time(self.client)
            nodes = await self.client.masters()
            times = await asyncio.gather(*(_time(self.client.client(node)) for node in nodes))
        middle = statistics.median(times)
        return max(times, key=lambda it: abs(it - middle))

    async def faults(self) -> list[str]:
        """As `faults`."""
        return await faults(self.client)


async def gauges(client: Redis | Cluster) -> dict[str, int]:
    """What the operator watches: memory in bytes, and fsyncs that came late; of all masters."""
    async with answering():
        if isinstance(client, Redis):
            servers = [client]
        else:
            servers = [client.client(node) for node in await client.masters()]
        reports = await asyncio.gather(*(server.info("everything") for server in servers))
    infos = cast("list[Mapping[str, Any]]", reports)
    return {
        "memory_bytes": sum(int(info.get("used_memory", 0)) for info in infos),
        "aof_delayed_fsync": sum(int(info.get("aof_delayed_fsync", 0)) for info in infos),
    }


async def _time(client: Redis) -> float:
    seconds, micros = await client.time()
    return int(seconds) + int(micros) / 1e6


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value if value is not None else "")
