"""One collector, its helpers and a store as processes of their own, on one machine.

Each party has its own folder, identity and state, and knows of the others only what a deployment
would tell it: identities, addresses, and the bearer token between collector and helper. What one
machine cannot give is independence: whoever owns it owns all parties.
"""

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client_py.config import ClientConfig, PinnedConfig, Policy
from collector.tokens import Scope, issue
from dandelion.cli.deployment import Deployment
from dandelion.cli.embedded_store import EmbeddedStore
from dandelion.cli.output import Fault
from dandelion.service.identity import init_state

_HOST: Final = "127.0.0.1"
_READY_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 40.0
_DAY_S: Final = 86_400


@dataclass(frozen=True)
class Settings:
    """What differs between a laptop deployment and a demonstration.

    `ports`: public, admin, then one per helper; 0 takes a free one.
    """

    folder: Path
    scopes: tuple[str, ...]
    cohort_min: int
    policy: Policy
    ports: tuple[int, int, int, int] = (0, 0, 0, 0)
    redis_url: str | None = None
    workers: int = 1
    # The budget of each scope at every helper, as the epsilon of all rounds of a month together.
    epsilon_period: float = 30.0
    epsilon_round: float = 10.0
    # Origins of pages that may talk to the collector.
    allowed_origins: tuple[str, ...] = ()
    collector: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Party:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Stack:
    """The processes of one deployment. `start` them, `stop` them in the opposite order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.folder.resolve()
        self._parties: list[_Party] = []
        self._store: EmbeddedStore | None = None
        self._deployment: Deployment | None = None

    @property
    def deployment(self) -> Deployment:
        """Where the running deployment is."""
        if self._deployment is None:
            raise RuntimeError("not started")
        return self._deployment

    @property
    def client_config(self) -> ClientConfig:
        """What a client of this deployment pins."""
        return ClientConfig.load(self._folder / "client.toml")

    def processes(self) -> dict[str, int]:
        """Name and process id of everything started."""
        pids = {party.name: party.process.pid for party in self._parties}
        if self._store is not None and self._store.pid is not None:
            pids["store"] = self._store.pid
        return pids

    def start(self) -> None:
        """Makes what is missing, starts every process and waits until all are ready.

        Raises:
            Fault: one of them does not come up; its log says why.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        s = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        # Addresses are chosen before anything starts, because parties are told of each other.
        public, admin, *helper_ports = _ports(s.ports)
        collector = init_state(self._folder / "collector")
        redis_url = s.redis_url or self._start_store()
        helpers = [
            self._start_helper(number, port, collector)
            for number, port in enumerate(helper_ports, start=1)
        ]
        lines = [
            f"state_dir = {_toml(str(self._folder / 'collector'))}",
            f"redis_url = {_toml(redis_url)}",
            f"workers = {s.workers}",
            f"allowed_origins = {_toml(s.allowed_origins)}",
            f"public = {{ host = {_toml(_HOST)}, port = {public} }}",
            f"admin = {{ host = {_toml(_HOST)}, port = {admin} }}",
        ]
        for url, identity, token_file in helpers:
            lines += ["[[helpers]]", f"url = {_toml(url)}", f"identity = {_toml(identity.hex())}"]
            lines += [f"token_file = {_toml(str(token_file))}"]
        for section, values in s.collector.items():
            lines += [f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in values.items())]
        config = self._write("collector.toml", lines)
        self._run("collector", "collector", config, f"http://{_HOST}:{public}/readyz")
        pinned = PinnedConfig(
            endpoint=f"http://{_HOST}:{public}",
            collector=collector,
            helpers=tuple(identity for _, identity, _ in helpers),
        )
        ClientConfig(pinned, s.policy).save(self._folder / "client.toml")
        self._deployment = Deployment(
            public=f"http://{_HOST}:{public}",
            admin=f"http://{_HOST}:{admin}",
            token_file=str(self._admin_token()),
            client_config=str(self._folder / "client.toml"),
        )
        self._deployment.save(self._folder)

    def stop(self) -> None:
        """Ends every process that was started, collector first, store last."""
        while self._parties:
            party = self._parties.pop()
            party.process.terminate()
            try:
                party.process.wait(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                party.process.kill()
                party.process.wait()
        if self._store is not None:
            self._store.stop()
            self._store = None

    def failed(self) -> str | None:
        """The name of a party that has ended by itself, and where its log is."""
        for party in self._parties:
            if party.process.poll() is not None:
                return f"the {party.name} has ended; see {party.log}"
        return None

    def _start_store(self) -> str:
        self._store = EmbeddedStore(self._folder / "store")
        self._store.start()
        return self._store.url

    def _start_helper(self, number: int, port: int, collector: bytes) -> tuple[str, bytes, Path]:
        s, name = self._settings, f"helper-{number}"
        identity = init_state(self._folder / name)
        token_file = self._secret(f"{name}.token")
        lines = [
            f"listen = {_toml(f'{_HOST}:{port}')}",
            f"state_dir = {_toml(str(self._folder / name))}",
            f"collectors = [{_toml(collector.hex())}]",
            f"token_file = {_toml(str(token_file))}",
            "[floors]",
            f"cohort_min = {s.cohort_min}",
            f"per_round = {{ epsilon = {s.epsilon_round}, delta = 1e-8 }}",
        ]
        for scope in s.scopes:
            lines += [
                f"[scopes.{_toml(scope)}]",
                f"epsilon = {s.epsilon_period}",
                "delta = 1e-8",
                f"period_s = {30 * _DAY_S}",
            ]
        config = self._write(f"{name}.toml", lines)
        url = f"http://{_HOST}:{port}"
        self._run(name, "helper", config, f"{url}/livez")
        return url, identity, token_file

    def _run(self, name: str, module: str, config: Path, ready: str) -> None:
        log = self._folder / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Control-C is for the command, which stops its processes in order.
                start_new_session=True,
            )
        self._parties.append(_Party(name, process, log))
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not _answers(ready):
            if failed := self.failed():
                raise Fault(f"{failed}\n{_last_line(log)}".strip())
            if time.monotonic() > deadline:
                raise Fault(f"the {name} is not ready; see {log}")
            time.sleep(0.05)

    def _admin_token(self) -> Path:
        path = self._folder / "admin.token"
        if not path.exists():
            token = issue(
                self._folder / "collector",
                "laptop",
                tuple(Scope),
                lifetime_s=30 * _DAY_S,
                now=int(time.time()),
            )
            path.touch(mode=0o600)
            path.write_text(token + "\n")
        return path

    def _secret(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(32) + "\n")
        return path

    def _write(self, name: str, lines: Sequence[str]) -> Path:
        path = self._folder / name
        path.write_text("\n".join(lines) + "\n")
        return path


@contextmanager
def running(settings: Settings) -> Iterator[Stack]:
    """A started stack, stopped at the end whatever happens."""
    stack = Stack(settings)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def _ports(wanted: Sequence[int]) -> list[int]:
    """The wanted ports, with free ones in place of zeros; all different."""
    sockets = []
    try:
        for port in wanted:
            sock = socket.socket()
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((_HOST, port))
            except OSError as error:
                raise Fault(f"port {port} on {_HOST}: {error.strerror}") from None
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _toml(value: object) -> str:
    """A string, number, boolean or list of them; JSON's forms of these are TOML's too."""
    return json.dumps(value)
