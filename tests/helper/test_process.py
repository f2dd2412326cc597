"""Real helper processes: kill -9 while one answers, and a graceful stop."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.messages import Answer, Ask
from dandelion.schemes import oneshot
from tests.helper.builders import (
    COLLECTOR,
    COLLECTOR_SEED,
    TOKEN,
    Running,
    secret,
)

ROOT_DIR = Path(__file__).resolve().parents[2]


CONFIG = """\
listen = "unix:socket"
state_dir = "state"
collectors = ["{collector}"]
token_file = "token"
threads = 1
answer_delay_ms = 1

[floors]
cohort_min = 3
lifetime_max_s = 100000

[scopes.test]
epsilon = 10.0
delta = 1e-8
period_s = 86400
"""


class Process:
    """`python -m helper` on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "helper.toml"
        self.config.write_text(CONFIG.format(collector=COLLECTOR.hex()))
        (directory / "token").write_text(TOKEN)
        self.identity = bytes.fromhex(self._command("--init").stdout.decode().strip())
        self.stderr = b""

    def _command(self, *more: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "helper", "--config", str(self.config), *more],
            cwd=ROOT_DIR,
            capture_output=True,
            check=True,
            timeout=60,
        )

    @asynccontextmanager
    async def run(self, stop: int = signal.SIGTERM) -> AsyncIterator[Running]:
        """A running process, ended by a signal."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "helper",
            "--config",
            str(self.config),
            cwd=ROOT_DIR,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            while b'"listening"' not in (line := await process.stderr.readline()):
                assert line, "the helper did not start"
            no_runner = web.AppRunner(web.Application())
            connector = aiohttp.UnixConnector(str(self.directory / "socket"))
            async with aiohttp.ClientSession(connector=connector) as session:
                yield Running(no_runner, session, "http://helper", self.identity)
        finally:
            process.send_signal(stop)
            self.stderr += (await asyncio.wait_for(process.communicate(), 60))[1]
        assert process.returncode == (0 if stop == signal.SIGTERM else -stop)


async def fetched(helper: Running, ctx: bytes) -> bytes:
    """Polls for an answer."""
    while (reply := await helper.fetch(ctx)).status == 202:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    assert reply.status == 200, reply
    return reply.body


def long_round() -> dict[str, Any]:
    """A round, closed just now, whose mask sum takes a second or two."""
    now = int(time.time())
    return {
        "opens": now - 20,
        "closes": now - 10,
        "expires": now + 3_000,
        "slots": 200_000,
        "cohort_max": 100_000,
        "linf": 1,
        "l2sq": 1,
    }


def long_ask(d: Descriptor, n: int = 2_000) -> Ask:
    """An ask for n keys; what was summed does not matter here."""
    keys = sorted(kernel.x25519_public(secret(f"client {client}")) for client in range(n))
    return Ask.create(d.ctx, 0, b"".join(keys), b"", COLLECTOR_SEED)


async def test_process_killed_while_it_answers(tmp_path: Path) -> None:
    """kill -9 during a sum, and again after the answer: one answer, the right one."""
    process = Process(tmp_path)
    async with process.run(signal.SIGKILL) as helper:
        d = await helper.signed_round(**long_round())
        (path,) = (tmp_path / "state/roots").iterdir()
        root = path.read_bytes()
        ask = long_ask(d)
        assert (await helper.ask(ask)).status == 202
    assert path.exists()
    async with process.run(signal.SIGKILL) as helper:
        assert (await helper.fetch(d.ctx)).token == "not_asked"
        assert (await helper.ask(ask)).status == 202
        body = await fetched(helper, d.ctx)
        assert not path.exists()
    async with process.run() as helper:
        assert await fetched(helper, d.ctx) == body
        assert (await helper.ask(long_ask(d, 1_999))).token == "set_conflict"
    answer = Answer.decode(body, d.payload_bytes)
    party = d.party_of(process.identity)
    answer.check(ask, party, process.identity)
    assert answer.r == oneshot.answer_vector(d, party, root, 0, ask.set_digest, ask.keys)


async def test_process_stops_gracefully(tmp_path: Path) -> None:
    """SIGTERM finishes what is being computed, then the process ends with status 0."""
    process = Process(tmp_path)
    async with process.run() as helper:
        d = await helper.signed_round(**long_round())
        assert (await helper.ask(long_ask(d))).status == 202
    assert process.stderr.count(b'"answer_stored"') == 1
    async with process.run() as helper:
        assert (await helper.fetch(d.ctx)).status == 200
