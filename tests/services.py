"""Real services for tests: Redis and Valkey on Unix sockets, and a pair of helpers.

`valkey` is the embedded server that the demonstration uses, `redis` is Debian's. A test that
needs one and does not find it fails: nothing here is skipped.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aiohttp import web

from dandelion.cli.embedded_store import KEEPING, EmbeddedStore
from dandelion.service.identity import init_state
from helper.app import Runner as HelperRunner
from helper.app import make_app
from helper.config import Config as HelperConfig


class StoreServer(EmbeddedStore):
    """A server in a folder of its own, which `discard` removes."""

    def __init__(self, binary: Path, settings: Mapping[str, str] = KEEPING) -> None:
        # Socket paths have about a hundred characters at most, less than many a test folder.
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        super().__init__(self.folder, binary=binary, settings=settings)

    def discard(self) -> None:
        """Ends the server and removes its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


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
    clock: Callable[[], float] = time.time,
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
            app = make_app(config, clock=clock)
            runner = HelperRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0]
            helpers.append(RunningHelper(f"http://{host}:{port}", identity, token, app))
        yield helpers
