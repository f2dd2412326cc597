"""What operators see: readiness, metrics, logs, and configuration."""

import asyncio
import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from collector import logs
from collector.config import Config, load_config
from collector.health import REASONS, Health
from collector.metrics import METRICS, Metrics, render
from collector.redis_contract import RedisInspection
from collector.redis_store import RedisStore
from collector.store import MemoryStore, StoreUnavailable
from dandelion.encoding import identity_of
from dandelion.service.config import ConfigError
from dandelion.service.identity import StateError, init_state, read_seed
from dandelion.service.logs import JsonFormatter
from tests.collector.builders import plain_report, seed
from tests.collector.door import door, raw


class FakeStore:
    """Answers what a test wants to hear."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.lossy: list[str] = []
        self.away = False

    async def clock(self) -> float:
        if self.away:
            raise StoreUnavailable("away")
        return self.time

    async def faults(self) -> list[str]:
        return self.lossy


class HealthRig:
    """A process that is ready, and everything that can change that."""

    def __init__(self, folder: Path) -> None:
        self.store = FakeStore()
        self.queue, self.draining = 0.0, False
        self.health = Health(
            self.store,
            folder,
            clock=lambda: 1_000.0,
            queue=lambda: self.queue,
            draining=lambda: self.draining,
        )


def spoil(it: HealthRig, reason: str, patch: pytest.MonkeyPatch) -> None:
    """Brings a reason about."""
    match reason:
        case "store_unavailable":
            it.store.away = True
        case "store_lossy":
            it.store.lossy = ["set something"]
        case "clock_differs":
            it.store.time = 1_003.0
        case "disk_full":
            usage = SimpleNamespace(total=10**12, free=10**6)
            patch.setattr(shutil, "disk_usage", lambda _: usage)
        case "queue_full":
            it.queue = 0.9
        case "draining":
            it.draining = True
        case "event_loop_late":
            it.health.lag_s = 3.0
        case "starting":
            it.health = Health(it.store, Path(), clock=float, queue=float, draining=lambda: False)


@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_each_reason_alone_makes_a_process_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Ready before; then exactly this reason."""
    it = HealthRig(tmp_path)
    await it.health.check()
    assert it.health.reasons() == []
    spoil(it, reason, monkeypatch)
    if reason != "starting":
        await it.health.check()
    assert it.health.reasons() == [reason]


async def test_the_store_s_own_clock_and_settings_are_asked(redis_store: RedisStore) -> None:
    """A setting that is changed while the collector runs makes it not ready."""
    inspection = RedisInspection(redis_store.redis)
    assert await inspection.clock() > 1_700_000_000
    await redis_store.redis.config_set("appendfsync", "everysec")
    try:
        assert len(await inspection.faults()) == 1
    finally:
        await redis_store.redis.config_set("appendfsync", "always")
    assert await inspection.faults() == []


async def test_reasons_are_told_to_operators_only(tmp_path: Path) -> None:
    """The public listener says yes or no; the admin listener says why."""
    async with door(tmp_path, MemoryStore()) as it:
        it.node.stopping = True
        for url, shown in [(it.node.public_url, False), (it.node.admin_url, True)]:
            async with it.session.get(f"{url}/readyz") as response:
                assert response.status == 503
                assert ("draining" in await response.text()) == shown
            async with it.session.get(f"{url}/livez") as response:
                assert response.status == 200


def test_metrics_come_from_closed_lists() -> None:
    """A name or a label value outside the lists is a programming error."""
    metrics = Metrics()
    metrics.count("reports_total", "accepted")
    metrics.observe("commit_seconds", 0.003)
    for wrong in [("reports_total", "blue"), ("reports_total", ""), ("colour", "")]:
        with pytest.raises(KeyError):
            metrics.count(*wrong)
    with pytest.raises(KeyError):
        metrics.set("rounds", 1, "blue")
    labels = {metric.label for metric in METRICS.values()}
    assert labels == {"", "result", "phase"}


def test_metrics_are_written_for_prometheus() -> None:
    """Help, type, one series per process; a histogram is cumulative and ends in +Inf."""
    one, two = Metrics(), Metrics()
    one.count("reports_total", "accepted", by=3)
    for seconds in (0.0005, 0.003, 99):
        two.observe("commit_seconds", seconds)
    text = render({"0": one.snapshot(), "1": json.loads(json.dumps(two.snapshot()))})
    lines = text.splitlines()
    assert "# TYPE dandelion_reports_total counter" in lines
    assert 'dandelion_reports_total{process="0",result="accepted"} 3' in lines
    assert 'dandelion_reports_total{process="1",result="accepted"} 0' in lines
    found = [
        line for line in lines if line.startswith('dandelion_commit_seconds_bucket{process="1"')
    ]
    counts = [int(line.rpartition(" ")[2]) for line in found]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 3)
    assert 'le="+Inf"' in found[-1]
    assert 'dandelion_commit_seconds_count{process="1"} 3' in lines


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, as the process would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def test_nothing_of_a_client_is_logged_or_counted(tmp_path: Path, log: io.StringIO) -> None:
    """Addresses, agents, paths, keys and payloads of good and bad requests leave no trace."""
    async with door(tmp_path, MemoryStore()) as it:
        report = plain_report(it.d, 1)
        marks = {"User_Agent": "CANARY-AGENT", "Referer": "https://CANARY-PAGE.example/"}
        await it.post(report.encode(), **marks)
        await it.post(report.encode()[:-1], **marks)
        await it.post(report.encode(), "/v1/CANARY-PATH?q=CANARY-QUERY", **marks)
        await raw(it.node, b"POST /CANARY-LINE HTTP/9.9\r\nCANARY-HEADER\0: x\r\n\r\n")
        await raw(it.node, b"CANARY \x00\xff garbage\r\n\r\n")
        async with it.session.get(f"{it.node.admin_url}/metrics") as response:
            text = await response.text()
    text += log.getvalue()
    assert "reports_total" in text
    for mark in ("CANARY", "127.0.0.1, ", report.epk.hex(), report.payload.hex()[:64]):
        assert mark not in text


async def test_our_own_faults_say_nothing(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is answered `internal`, and logged by type and place without its message."""
    async with door(tmp_path, MemoryStore()) as it:

        def broken(*_: object) -> None:
            raise ZeroDivisionError("CANARY")

        monkeypatch.setattr("collector.ingest.check_of", broken)
        status, answer, _ = await it.post(plain_report(it.d, 1).encode())
    assert (status, answer) == (
        500,
        {
            "type": "urn:dandelion:problem:internal",
            "title": "Internal error",
            "status": 500,
        },
    )
    [line] = [json.loads(it) for it in log.getvalue().splitlines() if "ZeroDivision" in it]
    assert line["event"] == "internal"
    assert "ingest.py" in line["at"]
    assert "CANARY" not in log.getvalue()


def test_events_come_from_a_closed_list() -> None:
    """An event outside the vocabulary is a programming error."""
    with pytest.raises(KeyError):
        logs.event("somebody_came")


GOOD: dict[str, object] = {
    "state_dir": "state",
    "redis_url": "unix:///run/redis.sock",
    "public": {"port": 1},
    "admin": {"port": 2},
    "helpers": [
        {"url": "http://one/", "identity": seed("1").hex(), "token": "t"},
        {"url": "http://two", "identity": seed("2").hex(), "token_file": "two.token"},
    ],
}


def test_a_configuration_is_read(tmp_path: Path) -> None:
    """Paths are relative to the file; what is left out has a default."""
    lines = [
        'state_dir = "state"',
        'redis_url = "redis://localhost/0"',
        "public = { port = 8080 }",
        "admin = { port = 8081 }",
    ]
    for helper in ("one", "two"):
        lines += ["[[helpers]]", f'url = "http://{helper}"', f'token_file = "{helper}.token"']
        lines += [f'identity = "{seed(helper).hex()}"']
    (tmp_path / "c.toml").write_text("\n".join(lines))
    (tmp_path / "one.token").write_text("secret\n")
    config = load_config(tmp_path / "c.toml")
    assert config.state_dir == tmp_path / "state"
    assert config.helpers[0].bearer() == "secret"
    assert (config.workers, config.allow_lossy) == (1, False)
    with pytest.raises(ConfigError, match="token_file"):
        config.helpers[1].bearer()


@pytest.mark.parametrize(
    "change",
    [
        {"colour": 1},
        {"redis_url": "http://x"},
        {"workers": 0},
        {"helpers": []},
        {"helpers": [{"url": "ftp://x", "identity": seed("1").hex(), "token": "t"}] * 2},
        {"helpers": [{"url": "http://x", "identity": seed("1").hex(), "token": "t"}] * 2},
        {"helpers": [{"url": "http://x", "identity": seed("1").hex()}] * 2},
        {"public": {"port": 70_000}},
        {"allowed_origins": ["*"]},
        {"limits": {"batch_reports": 2_000}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_configurations_are_refused(change: dict[str, object]) -> None:
    """What is misspelt or out of range stops the start."""
    Config.model_validate(GOOD)
    with pytest.raises(ValueError, match="validation error"):
        Config.model_validate(GOOD | change)


@pytest.mark.parametrize("text", ["a = ", "a = 1", "state_dir = 7", ""])
def test_a_configuration_error_names_the_file(tmp_path: Path, text: str) -> None:
    """One line, with the file and the reason, and no value of the file in it."""
    path = tmp_path / "c.toml"
    with pytest.raises(ConfigError, match=r"c\.toml: No such file"):
        load_config(path)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.toml: "):
        load_config(path)


def test_secrets_do_not_print() -> None:
    """A token does not show in the text form of a configuration."""
    assert "'t'" not in repr(Config.model_validate(GOOD))


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    """Asking again returns the same one; others may not be able to read it."""
    identity = init_state(tmp_path / "s")
    assert init_state(tmp_path / "s") == identity == identity_of(read_seed(tmp_path / "s"))
    assert (tmp_path / "s" / "identity").stat().st_mode & 0o777 == 0o600
    (tmp_path / "s" / "identity").chmod(0o640)
    with pytest.raises(StateError, match="others may read"):
        read_seed(tmp_path / "s")
    (tmp_path / "s" / "identity").write_bytes(b"short")
    with pytest.raises(StateError, match="not a seed"):
        read_seed(tmp_path / "s")
    with pytest.raises(StateError, match="no identity"):
        read_seed(tmp_path)


async def test_one_first_process_per_state_directory(tmp_path: Path) -> None:
    """Two drivers over one state would both move its rounds: the second does not start."""
    async with door(tmp_path, MemoryStore()):
        with pytest.raises(StateError, match="another collector"):
            async with door(tmp_path, MemoryStore()):
                await asyncio.sleep(0)
