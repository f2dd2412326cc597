"""`dandelion up --demo`: a page on an origin of its own, and rounds while somebody looks at it."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from client_py.config import ClientConfig, PinnedConfig
from dandelion.cli.demo_page import DemoPage
from dandelion.cli.demo_rounds import QUERY, DemoRounds, commuters
from dandelion.cli.http import Api
from dandelion.cli.output import Fault

ROOT = Path(__file__).parents[2]
PEOPLE = 60
COHORT_MIN = 50
PATIENCE_S = 60.0


class Up(NamedTuple):
    """A running command, and the addresses it has printed."""

    process: subprocess.Popen[str]
    public: str
    page: str


class Answer(NamedTuple):
    """Of a request."""

    status: int
    headers: Message
    body: bytes


def command(*arguments: str) -> list[str]:
    """The command line of `dandelion up --demo`."""
    words = [sys.executable, "-c", "from dandelion.cli import main; main()", "up", "--demo"]
    return [*words, "--port", "0", *arguments]


def fetch(url: str, **headers: str) -> Answer:
    """What a browser would get; a status of 400 or more is an answer as well."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def document(url: str) -> Any:
    """JSON."""
    return json.loads(fetch(url).body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page as it might have been built."""
    made = tmp_path_factory.mktemp("page")
    (made / "index.html").write_text("<!doctype html><title>A page</title>")
    (made / "page.js").write_text("0")
    (made / "secret.key").write_text("not of the page")
    (made / "dandelion").mkdir()
    (made / "dandelion" / "index.js").write_text("1")
    return made


@pytest.fixture(scope="module")
def up(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The command, stopped at the end in any case."""
    options = ["--page", str(folder), "--folder", str(tmp_path_factory.mktemp("state"))]
    options += ["--people", str(PEOPLE), "--cohort-min", str(COHORT_MIN), "--round", "3s"]
    with subprocess.Popen(
        command(*options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            said: dict[str, str] = {}
            for line in process.stdout:
                name, _, value = line.partition("  ")
                said[name] = value.strip()
                if line.startswith("Control-C"):
                    break
            yield Up(process, said["public"], said["demo page"])
        finally:
            process.terminate()


def test_the_page_has_an_origin_of_its_own_and_may_talk_to_one_collector(up: Up) -> None:
    """No script but its own runs, and nothing but its own origin and the collector is reached."""
    answer = fetch(up.page + "/")
    assert answer.body == b"<!doctype html><title>A page</title>"
    rules = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in rules
    assert "script-src 'self' 'wasm-unsafe-eval'" in rules
    assert f"connect-src 'self' {up.public}" in rules
    assert up.page != up.public
    assert (
        fetch(up.page + "/dandelion/index.js").headers["Content-Type"].startswith("text/javascript")
    )


def test_the_collector_lets_that_page_read_its_answers_and_no_other(up: Up) -> None:
    """The demo page is one more web site to the collector."""
    for origin, allowed in ((up.page, up.page), ("http://127.0.0.1:1", None)):
        answer = fetch(up.public + "/v1/rounds", Origin=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == allowed


@pytest.mark.parametrize(
    "path", ["/secret.key", "/../page/secret.key", "/%2e%2e/secret.key", "/dandelion", "/admin"]
)
def test_nothing_but_the_page_is_served(up: Up, path: str) -> None:
    """Files are named by the build, not by the request."""
    assert fetch(up.page + path).status == 404


def test_the_page_pins_the_deployment_it_came_with(up: Up) -> None:
    """The identities in `/config.json` are those that sign the rounds."""
    pinned = document(up.page + "/config.json")
    assert pinned["endpoint"] == up.public
    assert len(pinned["config"]["helpers"]) == 2
    assert pinned["policy"]["cohortMin"] == COHORT_MIN
    assert set(pinned["registry"]["events"]) == {"commute"}


def test_a_round_opens_for_whoever_looks_and_its_answer_is_released(up: Up) -> None:
    """The simulated people suffice for the cohort, so a visitor is never alone."""
    seen: dict[str, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        now = document(up.page + "/now.json")
        if now["state"] == "open":
            assert now["now"] < now["closes"] + 1
            seen[now["round"]] = now["answered"]
        released = {
            it["round"]: it["reports"]
            for it in document(up.public + "/v1/releases")["releases"]
            if it["phase"] == "released"
        }
        if shown := released.keys() & seen.keys():
            assert all(released[it] == PEOPLE for it in shown)
            assert {it["query"] for it in document(up.public + "/v1/releases")["releases"]} == {
                QUERY
            }
            return
        time.sleep(0.2)
    raise AssertionError(f"no answer in {PATIENCE_S:.0f} s; rounds seen: {seen}")


def test_control_c_stops_all_of_it(up: Up) -> None:
    """Ends with 0, and the collector is gone. The last test of this file: it ends `up`."""
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=60) == 0
    with pytest.raises(urllib.error.URLError):
        fetch(up.public + "/livez")


def test_a_page_that_is_not_built_is_said_so_before_anything_starts(tmp_path: Path) -> None:
    """One line that names the remedy, and no state is left behind."""
    state = tmp_path / "state"
    done = subprocess.run(
        command("--page", str(tmp_path), "--folder", str(state)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "make demo-browser" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not state.exists()


def test_a_taken_port_is_named(folder: Path) -> None:
    """As for every other listener of the command."""
    first = DemoPage.open(0, folder)
    with first.listener:
        port = int(first.origin.rpartition(":")[2])
        with pytest.raises(Fault, match=f"port {port}"):
            DemoPage.open(port, folder)


def test_too_few_people_for_the_cohort_are_refused(folder: Path, tmp_path: Path) -> None:
    """Such a round would never be unmasked, and the visitor would wait for ever."""
    options = ["--page", str(folder), "--folder", str(tmp_path / "state"), "--people", "20"]
    done = subprocess.run(
        command(*options), capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    assert "fewer people" in done.stderr


class Admin:
    """A collector's interface for commands: notes what it is asked to open, or refuses."""

    def __init__(self, refusal: str = "") -> None:
        self.opened = 0
        self._refusal = refusal

    async def get_async(self, path: str) -> Any:
        assert path == "/v1/queries"
        return {"queries": []}

    async def admin_async(self, method: str, path: str, body: object = None) -> Any:
        del method, body
        if path == "/admin/v1/rounds":
            if self._refusal:
                raise Fault(self._refusal)
            self.opened += 1
            now = time.time()
            return {"round": f"{self.opened:032x}", "opens": now, "closes": now + 3_600}
        return {}

    async def envelope(self, round_id: str) -> bytes:
        del round_id
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@asynccontextmanager
async def rounds(admin: Admin) -> AsyncIterator[DemoRounds]:
    """Running rounds of a collector that does not exist."""
    pinned = PinnedConfig("http://127.0.0.1:9", b"c" * 32, (b"a" * 32, b"b" * 32))
    made = DemoRounds(
        cast("Api", admin), ClientConfig(pinned), cohort_min=5, people=10, duration_s=3_600
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled() -> None:
    """Lets everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_no_round_opens_while_nobody_looks() -> None:
    """Every round takes from budgets of a month; one look opens one."""
    admin = Admin()
    async with rounds(admin) as running:
        await settled()
        assert admin.opened == 0
        assert running.look()["state"] == "idle"
        await settled()
        assert admin.opened == 1
        assert running.look()["round"] == f"{1:032x}"


async def test_a_refusal_is_told_to_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """An exhausted budget, say; the command says so, too, and goes on."""
    async with rounds(Admin("budget_exhausted: of the scope")) as running:
        running.look()
        await settled()
        now = running.look()
        assert (now["state"], now["round"]) == ("waiting", "")
        assert "budget_exhausted" in now["reason"]
    assert "budget_exhausted" in capsys.readouterr().err


def test_the_people_are_always_the_same_ones() -> None:
    """What they hold is invented, so two runs can be compared."""
    assert commuters(50) == commuters(50)
    assert {row["mode"] for person in commuters(500) for row in person["commute"]} == {
        "walk",
        "bicycle",
        "bus",
        "train",
        "car",
        "other",
    }
