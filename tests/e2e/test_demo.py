"""The demonstration and a session with `dandelion up`, as separate processes, as a person runs
them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dandelion.cli.demo import QUERIES
from tests.services import StoreServer, redis_binary

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "dandelion" / "queries" / "examples" / "flights.yaml"
# Far beyond any noise of these sizes; a wrong sum would be uniformly random.
SIGMAS = 12


def command(*arguments: str) -> list[str]:
    """The command line of a `dandelion` command."""
    return [sys.executable, "-c", "from dandelion.cli import main; main()", *arguments]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """What the command inherits; temporary files go where the test can look."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)} | more


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that have something to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(folder) in words:
                found.append(words)
    return found


def run_demo(tmp_path: Path, env: Mapping[str, str], *options: str) -> dict[str, Any]:
    """The document of a small demonstration."""
    done = subprocess.run(
        command("demo", "--clients", "400", "--json", *options),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=dict(env),
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [], "it cleans up after itself"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def check_results(document: dict[str, Any]) -> None:
    """Every acknowledged report is counted, and every cell lies where the noise can put it."""
    assert [result["query"] for result in document["results"]] == list(QUERIES)
    for result in document["results"]:
        assert result["n"] == result["acknowledged"] == 400
        assert result["cells"]
        for cell in result["cells"]:
            assert {"truth", "estimate", "std_error", "ci_low", "ci_high"} <= cell.keys()
            if cell["withheld"]:
                assert cell["estimate"] is None
            elif not cell["name"].startswith("AVG"):
                assert abs(cell["estimate"] - cell["truth"]) < SIGMAS * cell["std_error"]
                assert cell["ci_low"] < cell["estimate"] < cell["ci_high"]
    assert {"start", "contribute", "release", "verify"} <= document["seconds"].keys()


def test_demo_shows_truth_beside_estimate(tmp_path: Path) -> None:
    """With the embedded store."""
    document = run_demo(tmp_path, environment(tmp_path))
    check_results(document)
    assert document["outcomes"] == {"accepted": 800}


def test_demo_runs_on_a_redis_of_ones_own(tmp_path: Path) -> None:
    """With Debian's Redis, and clients that are aircraft."""
    server = StoreServer(redis_binary())
    server.start()
    try:
        env = environment(tmp_path, DANDELION_REDIS_URL=server.url)
        document = run_demo(tmp_path, env, "--unit", "aircraft", "--rows-max", "2")
    finally:
        server.discard()
    assert document["unit"] == "aircraft"
    for result in document["results"]:
        assert result["n"] == 400
        assert result["exact_truth"] is False


def test_demo_refuses_a_redis_that_forgets_and_says_what_to_change(tmp_path: Path) -> None:
    """Debian's defaults lose confirmed writes; the error names the settings."""
    server = StoreServer(redis_binary(), {"appendonly": "no"})
    server.start()
    try:
        done = subprocess.run(
            command("demo", "--clients", "100"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(tmp_path, DANDELION_REDIS_URL=server.url),
        )
    finally:
        server.discard()
    assert done.returncode == 1
    assert "appendonly yes" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_in(tmp_path) == []


def test_demo_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle: every process ends, the folder goes."""
    process = subprocess.Popen(
        command("demo", "--clients", "400"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(tmp_path),
    )
    deadline = time.monotonic() + 60
    while not any("collector" in line for line in processes_in(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which `dandelion up` runs on free ports."""
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            command("up", "--port", "0", "--scope", "flights", "--cohort-min", "100"),
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env=environment(tmp_path),
        )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".dandelion" / "deployment.json").exists():
            assert process.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield tmp_path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert processes_in(tmp_path / ".dandelion") == []


def test_a_session(folder: Path) -> None:
    """The session of the README: ask, open, contribute, simulate, read, export, verify."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
            env=environment(folder),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    sql = "SELECT carrier, AVG(dep_delay), COUNT(*) FROM flight GROUP BY carrier"
    run(
        *("query", "add", "delays", "--scope", "flights", "--cohort-min", "100"),
        *("--registry", str(FLIGHTS), "--sql", sql),
    )
    assert "delays" in run("query", "list")
    assert "Your client looks at its own records" in " ".join(
        run("query", "show", "delays").split()
    )
    opened = json.loads(run("rounds", "open", "delays", "--for", "30s", "--json"))
    round_id = opened["round"]
    receipt = run("contribute", "--record", 'flight:{"carrier": "UA", "dep_delay": 12}')
    assert "was sent and accepted" in receipt
    assert "nothing to answer" in run("contribute")
    simulated = json.loads(run("simulate", "--clients", "300", "--json"))
    assert simulated["acknowledged"] == {round_id: 300}
    run("rounds", "close", round_id)
    deadline = time.monotonic() + 60
    while json.loads(run("rounds", "show", round_id, "--json"))["phase"] != "released":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "holds truth" not in run("results", "show", round_id)
    assert round_id in run("results", "show")
    run("results", "export", round_id, "--format", "release", "-o", "a.release")
    document = json.loads(run("verify", "a.release", "--json"))
    assert document["n"] == 301
    table = json.loads(run("results", "export", round_id))
    assert table["cells"] == document["cells"]
    lines = run("results", "export", round_id, "--format", "csv").splitlines()
    assert re.match(r"round,query,reports,epsilon,delta,group,name,estimate,", lines[0])
    assert len(lines) == 1 + len(table["cells"])
