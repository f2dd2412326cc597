"""Real processes under load: told to stop, killed, and left without a parent."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from collector import registry
from collector.database import FILE, Database
from collector.redis_store import RedisStore, connect
from collector.store import LanePhase
from dandelion import kernel
from dandelion.cli.embedded_store import valkey_binary
from dandelion.params import MEDIA_REPORT
from dandelion.schemes import oneshot
from dandelion.service.identity import init_state
from tests.collector.builders import descriptor_for, plain_report, seed
from tests.collector.door import round_for
from tests.oracle_membership import assert_exactly_once
from tests.services import StoreServer

ROOT = Path(__file__).resolve().parents[2]
START_S = 60


class Site:
    """A collector's folder, its store, and one open round in it."""

    def __init__(self, folder: Path, server: StoreServer, slots: int) -> None:
        self.folder = folder
        self.server = server
        self.round = round_for(descriptor_for(slots))
        self.d = self.round.descriptor
        self.state = folder / "state"
        self.file = folder / "collector.toml"
        self.identity = init_state(self.state)
        self.started: list[asyncio.subprocess.Process] = []

    def write(self, workers: int) -> None:
        """The configuration file, and the round as an earlier process would have left it."""
        lines = [
            'state_dir = "state"',
            f'redis_url = "{self.server.url}"',
            f"workers = {workers}",
            "drain_s = 10",
            "public = { port = 0 }",
            "admin = { port = 0 }",
        ]
        for number in (1, 2):
            lines += ["[[helpers]]", 'url = "http://127.0.0.1:9"', 'token = "t"']
            lines += [f'identity = "{seed(str(number)).hex()}"']
        self.file.write_text("\n".join(lines))

    async def put_round(self) -> None:
        """Puts the round into the database; the driver does the rest when it starts."""
        database = Database(self.state / FILE)
        await database.run(lambda c: registry.add_query(c, "test", {"name": "test"}, 1))
        await database.run(lambda c: registry.add_round(c, self.round))
        database.close()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[RedisStore]:
        """The store as the collector sees it."""
        found = RedisStore(connect(self.server.url), f"dandelion:{self.identity.hex()[:16]}")
        yield found
        await found.close()

    async def sums(self) -> np.ndarray:
        """Seals the round and returns the sum of everything committed, after counting."""
        async with self.store() as store:
            [lane] = self.round.layout.lanes
            await store.step(lane, LanePhase.SEALED)
            keys = await store.keys(self.round.layout, lane)
            assert len(keys) == sum(meta.n for meta in await store.metas(lane))
            total = oneshot.add_sums(self.d, await store.sums(lane))
        return np.frombuffer(kernel.unpack(total, self.d.width), dtype="<i8")


class Process:
    """A running collector."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Starts it and waits until it is ready."""
        ports = self.site.state / "ports.json"
        ports.unlink(missing_ok=True)
        log = self.site.folder / "collector.log"
        with log.open("ab") as stream:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "collector", "--config", str(self.site.file)),
                cwd=ROOT,
                stderr=stream,
            )
        self.site.started.append(self.process)
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline and self.process.returncode is None:
                await asyncio.sleep(0.05)
                if ports.exists():
                    self.ports = json.loads(ports.read_text())
                    self.url = f"http://127.0.0.1:{self.ports['public']}"
                    with suppress(aiohttp.ClientError):
                        async with session.get(f"{self.url}/readyz") as response:
                            if response.status == 200:
                                return
        raise RuntimeError(f"the collector does not get ready: {log.read_text()[-2_000:]}")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    async def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Callable[[int, int], "Site"]]:
    """Makes sites; all servers are removed at the end, and processes that a failure left."""
    servers, sites = [], []

    def make(slots: int, workers: int) -> Site:
        server = StoreServer(valkey_binary())
        server.start()
        servers.append(server)
        made = Site(tmp_path, server, slots)
        made.write(workers)
        sites.append(made)
        return made

    yield make
    left = [it for place in sites for it in place.started if it.returncode is None]
    for process in left:
        process.kill()
        await process.wait()
    for server in servers:
        server.discard()


class Load:
    """Clients that send until they are told yes, each with the same bytes every time."""

    def __init__(self, site: Site, url: Callable[[], str]) -> None:
        self._site = site
        self._url = url
        self.acknowledged: set[int] = set()
        self.finals: set[int] = set()

    def has(self, count: int) -> bool:
        """Whether so many clients were told yes."""
        return len(self.acknowledged) >= count

    async def run(self, clients: range, *, attempts: int = 200) -> None:
        """Every client tries until 200 or 201."""
        connector = aiohttp.TCPConnector(limit=64, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._client(session, it, attempts) for it in clients))

    async def _client(self, session: aiohttp.ClientSession, client: int, attempts: int) -> None:
        body = plain_report(self._site.d, client).encode()
        path = f"/v1/rounds/{self._site.d.round_id.hex()}/reports"
        for _ in range(attempts):
            try:
                async with session.post(
                    self._url() + path, data=body, headers={"Content-Type": MEDIA_REPORT}
                ) as response:
                    if response.status in (200, 201):
                        self.acknowledged.add(client)
                        return
                    if response.status != 503:
                        self.finals.add(response.status)
                        return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.05)


async def test_sigterm_under_load_loses_no_acknowledged_report(
    site: Callable[[int, int], Site],
) -> None:
    """Stopped in the middle of a storm: the exit is clean, and whoever was told yes is in."""
    place = site(2_000, 2)
    await place.put_round()
    process = Process(place)
    await process.start()
    load = Load(place, lambda: process.url)
    sending = asyncio.create_task(load.run(range(2_000), attempts=1))
    await reached(partial(load.has, 100))
    assert await process.end(signal.SIGTERM) == 0
    await sending
    assert len(load.acknowledged) >= 100
    sums = await place.sums()
    counted = set(np.flatnonzero(sums).tolist())
    assert load.acknowledged <= counted
    assert_exactly_once(sums, counted)


async def test_kills_of_collector_and_store_count_everybody_once(
    site: Callable[[int, int], Site],
) -> None:
    """Both are killed again and again; in the end every client has a yes and is in once."""
    place = site(600, 2)
    await place.put_round()
    process = Process(place)
    await process.start()
    load = Load(place, lambda: process.url)
    sending = asyncio.create_task(load.run(range(600)))
    for turn in range(4):
        await reached(partial(load.has, 100 * (turn + 1)))
        if turn % 2:
            place.server.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(place.server.start)
        else:
            await process.end(signal.SIGKILL)
            await process.start()
    await sending
    assert load.finals == set()
    assert load.acknowledged == set(range(600))
    assert await process.end(signal.SIGTERM) == 0
    assert_exactly_once(await place.sums(), range(600))


async def test_a_worker_that_dies_is_replaced(site: Callable[[int, int], Site]) -> None:
    """A killed ingest process is started again, and all go when the first one is told to stop."""
    place = site(64, 3)
    await place.put_round()
    process = Process(place)
    await process.start()
    before = await children(process, 2)
    os.kill(before[0], signal.SIGKILL)
    await reached(lambda: len(set(children_of(process.pid)) - {before[0]}) == 2)
    after = children_of(process.pid)
    assert await process.end(signal.SIGTERM) == 0
    assert [pid for pid in after if alive(pid)] == []


async def test_workers_do_not_outlive_the_first_process(
    site: Callable[[int, int], Site],
) -> None:
    """When the first process is killed, the others hear it and stop by themselves."""
    place = site(64, 2)
    await place.put_round()
    process = Process(place)
    await process.start()
    pids = await children(process, 1)
    await process.end(signal.SIGKILL)
    await reached(lambda: not any(alive(pid) for pid in pids))


async def test_metrics_name_every_process(site: Callable[[int, int], Site]) -> None:
    """The admin listener shows the numbers of all processes, and no client's."""
    place = site(64, 2)
    await place.put_round()
    process = Process(place)
    await process.start()
    await Load(place, lambda: process.url).run(range(20))
    url = f"http://127.0.0.1:{process.ports['admin']}/metrics"
    accepted = 0.0
    async with aiohttp.ClientSession() as session:
        for _ in range(100):
            async with session.get(url) as response:
                lines = (await response.text()).splitlines()
            found = [line for line in lines if 'result="accepted"' in line]
            accepted = sum(float(line.rpartition(" ")[2]) for line in found)
            if accepted == 20 and len(found) == 2:
                break
            await asyncio.sleep(0.1)
    assert accepted == 20
    assert len(found) == 2
    assert await process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    "setting, value", [("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")]
)
async def test_a_lossy_store_is_refused_at_the_start(
    site: Callable[[int, int], Site], setting: str, value: str
) -> None:
    """The process ends with one line that says what to change."""
    place = site(64, 1)
    async with place.store() as store:
        await store.redis.config_set(setting, value)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "collector", "--config", str(place.file)),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 1
    last = error.decode().strip().splitlines()[-1]
    assert f"set `{setting} " in last


@pytest.mark.parametrize("worker", [False, True])
async def test_a_process_that_waits_for_its_store_can_be_stopped(
    site: Callable[[int, int], Site], worker: bool
) -> None:
    """No store, so it cannot start; told to stop, or left by the first process, it ends well."""
    place = site(64, 1)
    place.server.kill()
    words = ["--worker", "1", "--port", "0"] if worker else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "collector", "--config", str(place.file), *words),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    await reached(partial(catches, process.pid, signal.SIGTERM))
    if worker:
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)
    # One that goes on waiting ends with 1, since its store never comes.
    assert await process.wait() == 0
    process.stdin.close()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal by now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


async def reached(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


async def test_a_lossy_store_can_be_allowed(site: Callable[[int, int], Site]) -> None:
    """With allow_lossy the operator takes the risk, and the process is ready."""
    place = site(64, 1)
    async with place.store() as store:
        await store.redis.config_set("appendfsync", "everysec")
    place.file.write_text("allow_lossy = true\n" + place.file.read_text())
    await place.put_round()
    process = Process(place)
    await process.start()
    assert await process.end(signal.SIGTERM) == 0


async def children(process: Process, count: int) -> list[int]:
    """Process ids of the workers, once there are `count` of them."""
    await reached(lambda: len(children_of(process.pid)) >= count)
    return children_of(process.pid)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
