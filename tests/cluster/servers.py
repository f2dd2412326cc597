"""A real cluster for tests: three masters with a replica each, on free ports of this machine.

Settings are those of deploy/redis-cluster.conf, with a shorter timeout. Servers are killed, paused
and started again one by one, each by its own process id.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from collector.redis_cluster import Cluster, Node
from collector.redis_store import RedisStore, connect_any

CONF = Path(__file__).parents[2] / "deploy" / "redis-cluster.conf"
HOST = "127.0.0.1"
MASTERS = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
WAIT_S = 30.0
_OWN = ("port", "bind", "cluster-node-timeout")


@dataclass
class Server:
    """One process of the cluster."""

    binary: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    client: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = Redis(host=HOST, port=self.port, protocol=2, socket_timeout=5)

    @property
    def node(self) -> Node:
        """How the store names it."""
        return Node(HOST, self.port)

    @property
    def id(self) -> str:
        """How the cluster names it."""
        return str(self.call("CLUSTER", "MYID"), "ascii")

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.folder.mkdir(exist_ok=True)
        options = [str(CONF), "--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        options += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self.answers, f"a server did not start; see {self.folder}")
        if self.process.poll() is not None:
            raise RuntimeError(f"port {self.port} is somebody else's")

    def answers(self) -> bool:
        """Whether it is up and has loaded its data; also if it has ended instead."""
        if self.process is None or self.process.poll() is not None:
            return True
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """Ends it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None
        self.client.connection_pool.disconnect()

    def pause(self) -> None:
        """Stops it in its tracks: connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def cut_off(self) -> None:
        """Keeps a replica from hearing of new writes: it fails to log in at its master."""
        self.client.config_set("masterauth", "not the password")
        self.client.client_kill_filter(_type="master")
        until(lambda: self.info().get("master_link_status") == "down", "still linked")

    def call(self, *words: str | int | bytes) -> Any:
        """One command."""
        return self.client.execute_command(*words)

    def info(self) -> dict[str, Any]:
        """Replication, as it sees it."""
        found: dict[str, Any] = self.client.info("replication")
        return found

    def offset(self) -> int:
        """How far the stream from master to replicas has come here."""
        info = self.info()
        name = "master_repl_offset" if info["role"] == "master" else "slave_repl_offset"
        return int(info[name])

    def in_step(self) -> bool:
        """Whether it is a replica that has all its master has sent, or a master with a replica."""
        info = self.info()
        if info["role"] == "master":
            return int(info["connected_slaves"]) > 0 and info["slave0"]["state"] == "online"
        return bool(info["master_link_status"] == "up")


class ClusterServers:
    """Six servers. Roles change; `master_of`, `replica_of` and `heal` go by what they are now."""

    def __init__(self, binary: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cluster-"))
        self.servers = [
            Server(binary, self._folder / str(port), port) for port in free_ports(2 * MASTERS)
        ]
        self._clients: list[Cluster] = []

    @property
    def url(self) -> str:
        """How a configuration names it: two of its servers."""
        return "redis+cluster://" + ",".join(str(server.node) for server in self.servers[:2])

    def start(self) -> None:
        """Starts the servers and makes them a cluster."""
        for server in self.servers:
            server.start()
        for number, server in enumerate(self.servers, start=1):
            # Different from the start: nothing has to be settled later.
            server.call("CLUSTER", "SET-CONFIG-EPOCH", number)
        first, *others = self.servers
        for server in others:
            # Both ways: each hears at once of the other.
            first.call("CLUSTER", "MEET", HOST, server.port)
            server.call("CLUSTER", "MEET", HOST, first.port)
        masters, replicas = self.servers[:MASTERS], self.servers[MASTERS:]
        for number, master in enumerate(masters):
            begin, end = (SLOTS * at // MASTERS for at in (number, number + 1))
            master.call("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        until(
            lambda: all(known(server) == len(self.servers) for server in self.servers),
            "the servers do not meet",
        )
        for master, replica in zip(masters, replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", master.id)
        self.settle()

    def discard(self) -> None:
        """Ends all servers and removes their data."""
        for server in self.servers:
            if server.process is not None:
                server.resume()
                server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def heal(self) -> None:
        """Brings back what is down, and waits until all is well; then everything is empty."""
        for server in self.servers:
            if server.process is None:
                server.start()
            server.resume()
            server.client.config_set("masterauth", "")
        self.settle()
        for server in self.masters():
            server.client.flushall()
            server.client.config_resetstat()
        self.settle()

    def settle(self) -> None:
        """Waits until every slot is served and every master has its replica."""
        until(lambda: all(self._well(server) for server in self.servers), "no agreement")

    def masters(self) -> list[Server]:
        """Those that hold slots, as most of the others see it."""
        return [server for server in self._up() if server.info()["role"] == "master"]

    def master_of(self, key: bytes) -> Server:
        """Who holds the key."""
        slot = key_slot(key)
        for first, last, master, *_ in self._up()[0].call("CLUSTER", "SLOTS"):
            if int(first) <= slot <= int(last):
                return self._at(int(master[1]))
        raise LookupError(slot)

    def replica_of(self, master: Server) -> Server:
        """The replica of a master."""
        [replica] = [
            server
            for server in self._up()
            if int(server.info().get("master_port", 0)) == master.port
        ]
        return replica

    def has_taken_over(self, server: Server) -> bool:
        """Whether all that are up agree that the server holds slots."""
        return all(
            any(int(row[2][1]) == server.port for row in other.call("CLUSTER", "SLOTS"))
            for other in self._up()
        ) and all(state(other) == "ok" for other in self._up())

    def replace(self, master: Server) -> Server:
        """Kills a master and has its replica take its place, with whatever that one has."""
        replica = self.replica_of(master)
        master.kill()
        replica.client.config_set("masterauth", "")
        replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
        until(lambda: self.has_taken_over(replica), "no failover")
        return replica

    def hand_over(self, master: Server) -> Server:
        """Has the replica of a master take its place in good order."""
        replica = self.replica_of(master)
        replica.call("CLUSTER", "FAILOVER")
        until(lambda: self.has_taken_over(replica), "no failover")
        return replica

    def begin_moving(self, slot: int, source: Server, target: Server) -> None:
        """Marks a slot as on its way from one master to another."""
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: Server, target: Server, count: int) -> int:
        """Moves up to `count` keys of the slot; how many went."""
        keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, count)
        self.move(source, target, keys)
        return len(keys)

    def move(self, source: Server, target: Server, keys: Sequence[bytes]) -> None:
        """Moves these keys; their slot must be marked as on its way."""
        if keys:
            source.call("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)

    def end_moving(self, slot: int, source: Server, target: Server) -> None:
        """Moves what is left, and gives the slot to its new master."""
        while self.move_keys(slot, source, target, 100):
            pass
        for server in (target, source, *(it for it in self.masters() if it is not source)):
            server.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def client(self, replicas: int) -> Cluster:
        """What the product connects with; `close_clients` closes it."""
        found = connect_any(self.url, replicas)
        assert isinstance(found, Cluster)
        self._clients.append(found)
        return found

    def store(self, replicas: int) -> RedisStore:
        """A store of its own, which waits for so many replicas."""
        return RedisStore(self.client(replicas), "test")

    async def close_clients(self) -> None:
        """Closes what `client` and `store` have opened."""
        while self._clients:
            await self._clients.pop().aclose()

    def _up(self) -> list[Server]:
        return [server for server in self.servers if server.process is not None]

    def _at(self, port: int) -> Server:
        [found] = [server for server in self.servers if server.port == port]
        return found

    def _well(self, server: Server) -> bool:
        try:
            return state(server) == "ok" and server.in_step() and known_well(server)
        except RedisError:
            return False


def known(server: Server) -> int:
    """How many servers it knows."""
    return len(lines(server))


def known_well(server: Server) -> bool:
    """Whether it thinks of every other server that it is there, and no slot is on its way."""
    return all(
        row[7] == "connected" and "fail" not in row[2] and "handshake" not in row[2]
        for row in lines(server)
    )


def lines(server: Server) -> list[list[str]]:
    """CLUSTER NODES, in words."""
    reply = server.client.execute_command("CLUSTER", "NODES")
    text = reply.decode() if isinstance(reply, bytes) else str(reply)
    return [line.split(" ") for line in text.strip().splitlines()]


def state(server: Server) -> str:
    """`ok` or `fail`."""
    text = server.client.execute_command("CLUSTER", "INFO")
    text = text.decode() if isinstance(text, bytes) else str(text)
    return dict(line.split(":") for line in text.split())["cluster_state"]


def free_ports(count: int) -> list[int]:
    """Ports that are free, and whose bus ports (10,000 above) are."""
    found: list[int] = []
    held: list[socket.socket] = []
    try:
        while len(found) < count:
            one, bus = socket.socket(), socket.socket()
            held += [one, bus]
            one.bind((HOST, 0))
            port = int(one.getsockname()[1])
            if port + 10_000 > 65_535:
                # Ephemeral ports are high: take one below them instead.
                one, port = socket.socket(), port - 20_000
                held.append(one)
                if not bound(one, port):
                    continue
            if bound(bus, port + 10_000):
                found.append(port)
    finally:
        for each in held:
            each.close()
    return found


def bound(sock: socket.socket, port: int) -> bool:
    """Binds it if it can be."""
    try:
        sock.bind((HOST, port))
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], fault: str, seconds: float = WAIT_S) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(fault)
        time.sleep(0.02)


@contextmanager
def cluster_of(binary: Path) -> Iterator[ClusterServers]:
    """A started cluster, removed at the end."""
    for attempt in range(3):
        servers = ClusterServers(binary)
        try:
            servers.start()
        except RuntimeError:
            # A port that was free was taken before the server had it.
            servers.discard()
            if attempt == 2:
                raise
        except BaseException:
            servers.discard()
            raise
        else:
            break
    try:
        yield servers
    finally:
        servers.discard()
