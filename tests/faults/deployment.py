"""A whole deployment of real processes in one folder, with a fault possible everywhere.

Store, collector (one or more processes) and two helpers, each under `shim.c` with controls of its
own. The collector reaches the store and each helper through a proxy of this process.
"""

import asyncio
import base64
import json
import random
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from collector.tokens import Scope, issue
from dandelion.cli.embedded_store import KEEPING, valkey_binary
from dandelion.descriptor import Descriptor, Envelope
from dandelion.service.identity import init_state
from tests.faults import shim
from tests.faults.proxies import Exchange, HelperProxy, Moments, StoreProxy, Weather
from tests.faults.services import Marked, Service
from tests.services import redis_binary

HELPERS: Final = ("helper-1", "helper-2")
SCOPE: Final = "test"
COHORT_MIN: Final = 2
_QUERY: Final = "members"
# Below the ports that the kernel gives to outgoing connections, so that a port stays free while
# its owner is down.
_PORTS: Final = range(20_000, 32_000)


@dataclass(frozen=True)
class Setup:
    """What a deployment consists of.

    Attributes:
        slots: clients of a round at most; each has a coordinate of its own.
        shard_bits: a round has 2^shard_bits release shards.
        workers: processes of the first collector, which supervises the others.
        second: whether another process takes reports beside it, started by itself.
        store: `valkey` or `redis`.
        lossy: the store syncs once a second, and the collector is told to bear that.
        mutant: name of a broken committer, see `mutants`.
        answer_s: from the end of a round to its expiry.
    """

    slots: int = 256
    shard_bits: int = 0
    workers: int = 1
    second: bool = False
    store: str = "valkey"
    lossy: bool = False
    mutant: str = ""
    answer_s: int = 3_600
    collector: Mapping[str, object] = field(default_factory=dict)


class Deployment:
    """The processes, while the context is entered. `services` by name."""

    def __init__(self, setup: Setup, rng: random.Random) -> None:
        self.setup = setup
        self.rng = rng
        # Socket paths have about a hundred characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.weather = {name: Weather(random.Random(rng.random())) for name in ("store", *HELPERS)}
        self.moments = Moments()
        self.exchanges: list[Exchange] = []
        self.services: dict[str, Service] = {}
        self.controls: dict[str, shim.Control] = {}
        self.left: list[str] = []
        self._closed = False
        self._marked = Marked()
        self._stack = AsyncExitStack()
        self._ports = iter(rng.sample(_PORTS, 1_000))

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def collectors(self) -> list[str]:
        """Names of the collector's processes that are started here."""
        return [name for name in self.services if name.startswith("collector")]

    def state(self, name: str) -> Path:
        """State folder of a party."""
        return self.folder / ("collector" if name.startswith("collector") else name)

    async def admin(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of an admin request; status 0 if there was no answer."""
        url = f"http://127.0.0.1:{self.admin_port}/admin/v1/{path}"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self.session.request(method, url, json=body, headers=headers) as response:
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return 0, None

    async def open(self, duration_s: int) -> Descriptor | None:
        """Opens a round; None if that was not confirmed."""
        body = {"query": _QUERY, "duration_s": duration_s}
        status, opened = await self.admin("POST", "rounds", body)
        if status != 201:
            return None
        while True:
            status, shown = await self.admin("GET", f"rounds/{opened['round']}")
            if status == 200:
                return Envelope.decode(base64.b64decode(shown["envelope"])).descriptor
            await asyncio.sleep(0.1)

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a public request; status 0 if there was no answer."""
        try:
            async with self.session.get(f"{self.public}{path}") as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, b""

    async def readiness(self) -> tuple[int, list[str]]:
        """What the first collector says of itself: 200 or 503 and reasons; 0 if it is away."""
        try:
            url = f"http://127.0.0.1:{self.admin_port}/readyz"
            async with self.session.get(url) as response:
                return response.status, (await response.json())["reasons"]
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, []

    def heal(self) -> None:
        """Ends every fault that lasts."""
        for weather in self.weather.values():
            weather.heal()
        for control in self.controls.values():
            control.heal()

    async def stop(self) -> dict[str, int | None]:
        """Ends everything in good order, the store last; exit statuses by name."""
        names = sorted(self.services, key=lambda name: (name == "store", name in HELPERS))
        found = {}
        for name in names:
            found[name] = await self.services[name].stop()
        return found

    async def _start(self) -> None:
        self._library = shim.build(self.folder)
        self.session = await self._stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), auto_decompress=False)
        )
        self.public_port, self.admin_port, *helper_ports = (self._port() for _ in range(4))
        self.public = f"http://127.0.0.1:{self.public_port}"
        self._write(helper_ports)
        proxies = [
            StoreProxy(
                self.folder / "s", self.folder / "store/s", self.weather["store"], self.moments
            ),
            *(
                HelperProxy(
                    self.folder / "unused",
                    self.state(name) / "s",
                    self.weather[name],
                    name,
                    port,
                    self.moments,
                    self.exchanges.append,
                )
                for name, port in zip(HELPERS, helper_ports, strict=True)
            ),
        ]
        for proxy in proxies:
            await self._stack.enter_async_context(proxy)
        self._service("store", self._store_command(), self._store_ready)
        for name in HELPERS:
            command = [sys.executable, "-m", "helper", "--config", f"{self.folder}/{name}.toml"]
            self._service(name, command, self._helper_ready(name))
        words = ["-m", "tests.faults.mutants", self.setup.mutant] if self.setup.mutant else []
        command = [sys.executable, *(words or ["-m", "collector"])]
        command += ["--config", f"{self.folder}/collector.toml"]
        self._service("collector", command, self._collector_ready)
        if self.setup.second:
            self._service("collector-2", [*command, "--ingest-only"], self._second_ready)
        first = ("store", *HELPERS)
        await asyncio.gather(*(self.services[name].start() for name in first))
        for name in self.collectors:
            await self.services[name].start()
        status, answer = await self.admin("POST", "queries", _query(self.setup))
        if status != 201:
            raise RuntimeError(f"the query was refused: {answer}")

    async def close(self) -> None:
        """Ends whatever still runs. `left` then describes processes that outlived it."""
        if self._closed:
            return
        self._closed = True
        self.heal()
        for service in self.services.values():
            service.hold()
            service.kill()
        for service in self.services.values():
            await service.stop()
        self.left = await self._marked.clear(40)
        await self._stack.aclose()
        for control in self.controls.values():
            control.close()

    def discard(self) -> None:
        """Removes the folder with all logs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _service(self, name: str, command: Sequence[str], ready: Any) -> None:
        control = self.controls[name] = shim.Control(
            self.folder / f"{name}.control", self.state(name)
        )
        environment = self._marked.environment(control.environment(self._library))
        log = self.folder / f"{name}.log"
        self.services[name] = Service(name, command, log, environment, ready)

    def _port(self) -> int:
        while True:
            port = next(self._ports)
            with socket.socket() as found:
                try:
                    found.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port

    def _store_command(self) -> list[str]:
        binary = {"valkey": valkey_binary, "redis": redis_binary}[self.setup.store]()
        folder = self.state("store")
        folder.mkdir()
        settings = dict(KEEPING) | ({"appendfsync": "everysec"} if self.setup.lossy else {})
        options = ["--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder)]
        for name, value in settings.items():
            options += [f"--{name}", value]
        return [str(binary), *options]

    async def _store_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.state("store") / "s"))
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await asyncio.wait_for(reader.readline(), 2)).startswith(b"+PONG")
        except (OSError, TimeoutError):
            return False
        finally:
            writer.transport.abort()

    def _helper_ready(self, name: str) -> Any:
        async def ready() -> bool:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.state(name) / "s"))
            except OSError:
                return False
            try:
                writer.write(b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                return b" 200 " in await asyncio.wait_for(reader.readline(), 2)
            except (OSError, TimeoutError):
                return False
            finally:
                writer.transport.abort()

        return ready

    async def _collector_ready(self) -> bool:
        return (await self.readiness())[0] == 200

    async def _second_ready(self) -> bool:
        # It shares its address, so it is asked through its log.
        log = self.services["collector-2"].log.read_text(errors="replace")
        return '"started"' in log.rpartition('"stopped"')[2]

    def _write(self, helper_ports: Sequence[int]) -> None:
        collector = init_state(self.folder / "collector")
        self.identity = collector
        lines = [
            f"state_dir = {_toml(str(self.folder / 'collector'))}",
            f"redis_url = {_toml(f'unix://{self.folder}/s')}",
            f"workers = {self.setup.workers}",
            f"allow_lossy = {_toml(self.setup.lossy)}",
            "partitions = 2",
            "drain_s = 10",
            f"public = {{ port = {self.public_port} }}",
            f"admin = {{ port = {self.admin_port} }}",
            *(f"{name} = {_toml(value)}" for name, value in self.setup.collector.items()),
        ]
        for name, port in zip(HELPERS, helper_ports, strict=True):
            identity = init_state(self.state(name))
            token = self.folder / f"{name}.token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
            lines += ["[[helpers]]", f'url = "http://127.0.0.1:{port}"']
            lines += [f"identity = {_toml(identity.hex())}", f"token_file = {_toml(str(token))}"]
            self._write_helper(name, collector, token)
        lines += ["[lifetimes]", "seal_grace_s = 0.3", "tick_s = 0.1"]
        lines += [f"answer_s = {self.setup.answer_s}"]
        lines += ["[limits]", "answer_s = 4", "helper_timeout_s = 3", "helper_retry_max_s = 1"]
        (self.folder / "collector.toml").write_text("\n".join(lines))
        self._token = issue(
            self.folder / "collector",
            "faults",
            tuple(Scope),
            lifetime_s=30 * 86_400,
            now=int(time.time()),
        )

    def _write_helper(self, name: str, collector: bytes, token: Path) -> None:
        lines = [
            f"listen = {_toml(f'unix:{self.state(name)}/s')}",
            f"state_dir = {_toml(str(self.state(name)))}",
            f"collectors = [{_toml(collector.hex())}]",
            f"token_file = {_toml(str(token))}",
            "threads = 1",
            "answer_delay_ms = 50",
            "drain_s = 5",
            "[floors]",
            "cohort_min = 1",
            "per_round = { epsilon = 1000.0, delta = 1e-8 }",
            f"[scopes.{SCOPE}]",
            "epsilon = 1000000.0",
            "delta = 1e-8",
            "period_s = 86400",
            "open_rounds_max = 10000",
        ]
        (self.folder / f"{name}.toml").write_text("\n".join(lines))


def _query(setup: Setup) -> dict[str, object]:
    """Client k sets slot k, the count of its own group, as far as it may: far above the noise."""
    who = {"kind": "category", "values": [f"c{number:04}" for number in range(setup.slots)]}
    columns = {"who": who, "load": {"kind": "number", "lo": 0, "hi": 2_000}}
    return {
        "name": _QUERY,
        "sql": "SELECT who, COUNT(load), SUM(load) FROM visit GROUP BY who",
        "registry": {"events": {"visit": {"columns": columns}}},
        "epsilon": "1000",
        "delta": "0.00000001",
        "scope": SCOPE,
        "cohort_min": COHORT_MIN,
        "cohort_max": 5_000,
        "shard_bits": setup.shard_bits,
    }


def _toml(value: object) -> str:
    """A string, number or boolean as TOML; JSON's forms of these are TOML's too."""
    return json.dumps(value)
