"""Stores that every test of the collector may ask for."""

import random
from collections.abc import AsyncIterator, Iterator

import pytest

from collector.redis_store import RedisStore, connect
from collector.store import MemoryStore, RoundStore
from dandelion.cli.embedded_store import valkey_binary
from tests.services import StoreServer, redis_binary
from tests.sim.store import SimServer


@pytest.fixture(scope="session")
def valkey() -> Iterator[StoreServer]:
    """One embedded Valkey for the whole run; each test finds it empty."""
    server = StoreServer(valkey_binary())
    server.start()
    yield server
    server.discard()


@pytest.fixture(scope="session")
def debian_redis() -> Iterator[StoreServer]:
    """One Redis of Debian for the whole run; each test finds it empty."""
    server = StoreServer(redis_binary())
    server.start()
    yield server
    server.discard()


@pytest.fixture(params=["memory", "simulated", "valkey", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RoundStore]:
    """Each kind of store in turn, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "simulated":
        yield SimServer("always", random.Random(0)).client()
        return
    name = {"valkey": "valkey", "redis": "debian_redis"}[request.param]
    server: StoreServer = request.getfixturevalue(name)
    async for redis in open_redis(server):
        yield redis


@pytest.fixture
async def redis_store(valkey: StoreServer) -> AsyncIterator[RedisStore]:
    """The store of production on the embedded server, empty."""
    async for redis in open_redis(valkey):
        yield redis


async def open_redis(server: StoreServer) -> AsyncIterator[RedisStore]:
    """A store on an emptied server."""
    client = connect(server.url)
    await client.flushall()
    redis = RedisStore(client, "test")
    yield redis
    await redis.close()
