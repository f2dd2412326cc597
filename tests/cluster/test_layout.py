"""Which servers a cluster has: addresses of some of them, and their word on all the others."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from collector.redis_cluster import Cluster, ClusterAddress, Node
from collector.redis_contract import RedisInspection, require
from collector.redis_store import RedisStore, connect
from collector.store import StoreUnavailable
from dandelion.cli.embedded_store import valkey_binary
from tests.cluster.servers import ClusterServers, Server, free_ports


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("redis+cluster://a:7000,b.example:7001", (Node("a", 7000), Node("b.example", 7001))),
        ("redis+cluster://a", (Node("a", 6379),)),
        ("rediss+cluster://me:p%40ss@[::1]:7000?ssl_ca_certs=/ca", (Node("::1", 7000),)),
    ],
)
def test_an_address_names_some_servers(text: str, seeds: tuple[Node, ...]) -> None:
    """Hosts and ports are read; login and options go to every server."""
    address = ClusterAddress.parse(text)
    assert address.seeds == seeds
    urls = {
        "redis": "redis://h:1",
        "rediss": "rediss://me:p%40ss@h:1?ssl_ca_certs=/ca",
    }
    assert address.url(Node("h", 1)) == urls[address.scheme]
    assert "p%40ss" not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        "redis+cluster://",
        "redis+cluster://a:0",
        "redis+cluster://a:70000",
        "redis+cluster://a,,b",
        "redis+cluster://a/1",
        "unix+cluster:///run/s",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """A cluster has hosts and ports, no databases and no sockets."""
    with pytest.raises(ValueError, match="not redis"):
        ClusterAddress.parse(text)


@pytest.fixture
def outsider(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps nothing and holds no slot: it was reset, or never was in the cluster."""
    server = Server(valkey_binary(), tmp_path / "outsider", free_ports(1)[0])
    server.start()
    server.client.config_set("appendonly", "no")
    yield server
    server.kill()


async def test_a_server_without_slots_is_no_cluster(outsider: Server) -> None:
    """No masters are not no faults: the contract does not hold for a cluster that nobody serves."""
    cluster = Cluster(ClusterAddress.parse(f"redis+cluster://{outsider.node}"), connect, 1)
    inspection = RedisInspection(cluster)
    questions: list[Callable[[], Awaitable[object]]] = [
        lambda: require(cluster),
        inspection.clock,
        inspection.faults,
        RedisStore(cluster, "test").ping,
        RedisStore(cluster, "test").compact,
    ]
    try:
        for question in questions:
            with pytest.raises(StoreUnavailable) as fault:
                await question()
            assert fault.value.kind == "SlotNotCovered"
    finally:
        await cluster.aclose()


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_server_that_left_is_passed_over(
    servers: ClusterServers, outsider: Server, refuses: bool
) -> None:
    """Whichever is asked first, the layout comes from a server that is in the cluster."""
    if refuses:
        outsider.call("ACL", "SETUSER", "default", "-cluster")
    address = ClusterAddress((outsider.node, servers.servers[0].node))
    for _ in range(12):
        # Each draws anew which of the two it asks first.
        cluster = Cluster(address, connect, 1)
        assert len(await cluster.masters()) == 3
        await cluster.aclose()
