"""Clusters that tests may ask for, and the stores on them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from collector.redis_store import RedisStore
from dandelion.cli.embedded_store import valkey_binary
from tests.cluster.servers import ClusterServers, cluster_of
from tests.services import redis_binary


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ClusterServers]:
    """One cluster of the embedded server for the whole run."""
    with cluster_of(valkey_binary()) as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[ClusterServers]:
    """One cluster of Debian's server for the whole run."""
    with cluster_of(redis_binary()) as servers:
        yield servers


@pytest.fixture
async def servers(valkey_cluster: ClusterServers) -> AsyncIterator[ClusterServers]:
    """A cluster in good health, empty."""
    valkey_cluster.heal()
    yield valkey_cluster
    await valkey_cluster.close_clients()


@pytest.fixture(params=["valkey_cluster", "redis_cluster"])
async def any_servers(request: pytest.FixtureRequest) -> AsyncIterator[ClusterServers]:
    """Each kind of cluster in turn, in good health and empty."""
    found: ClusterServers = request.getfixturevalue(request.param)
    found.heal()
    yield found
    await found.close_clients()


@pytest.fixture
def store(any_servers: ClusterServers) -> RedisStore:
    """The store of production on each kind of cluster, as a collector opens it by default."""
    return any_servers.store(1)
