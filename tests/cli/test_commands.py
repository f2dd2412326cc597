"""The command as a person meets it: help, results, and errors of one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client_py.config import ClientConfig, PinnedConfig
from dandelion.cli.app import app
from dandelion.vectors.inputs import PLAN, known_answer_descriptor
from dandelion.vectors.message_inputs import release_of

COMMANDS = [
    [],
    ["up"],
    ["collector"],
    ["helper"],
    ["keys"],
    ["keys", "collector"],
    ["keys", "helper"],
    ["keys", "token"],
    ["keys", "revoke"],
    ["config"],
    ["config", "show"],
    ["query"],
    ["query", "add"],
    ["query", "list"],
    ["query", "show"],
    ["rounds"],
    ["rounds", "open"],
    ["rounds", "list"],
    ["rounds", "show"],
    ["rounds", "close"],
    ["results"],
    ["results", "show"],
    ["results", "export"],
    ["verify"],
    ["contribute"],
    ["simulate"],
    ["demo"],
    ["bench"],
]


def dandelion(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder where no deployment is."""
    return subprocess.run(
        [sys.executable, "-c", "from dandelion.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "100",
        },
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    """`--help` explains and exits with 0."""
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout
    assert len(done.stdout.splitlines()) > 3


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A small valid release."""
    descriptor = replace(
        known_answer_descriptor(), slots=2, plan=PLAN, linf=10, l2sq=150, noise_var=500
    )
    path = tmp_path / "a.release"
    path.write_bytes(release_of(descriptor, range(1, 6)).encode())
    return path


def test_verify_accepts_and_prints_one_json_document(release: Path) -> None:
    """A program reads what was verified."""
    done = dandelion("verify", str(release), "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["valid"] is True
    assert document["n"] == 5
    assert document["cells"][0]["name"] == "COUNT(*)"
    assert "valid" in dandelion("verify", str(release)).stdout


def test_verify_refuses_a_flipped_bit_and_names_what_failed(release: Path) -> None:
    """One line, exit 1, nothing on standard output."""
    data = bytearray(release.read_bytes())
    data[-1] ^= 1
    release.write_bytes(data)
    done = dandelion("verify", str(release))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "release signature of the collector" in done.stderr


def test_verify_holds_against_expected_identities(release: Path) -> None:
    """A sound release of somebody else's is refused."""
    done = dandelion("verify", str(release), "--collector", "00" * 32)
    assert done.returncode == 1
    assert "not the expected one" in done.stderr
    helpers = [h.identity.hex() for h in known_answer_descriptor().helpers]
    options = [word for identity in helpers for word in ("--helper", identity)]
    assert dandelion("verify", str(release), *options).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "missing.release"],
        ["results", "show"],
        ["rounds", "list"],
        ["rounds", "open", "q", "--for", "soon"],
        ["simulate"],
        ["contribute"],
        ["contribute", "--record", "no json", "--config", "client.toml"],
        ["config", "show", "bad.toml"],
        ["collector", "--config", "bad.toml"],
        ["helper", "--config", "bad.toml"],
        ["results", "show", "--server", "http://127.0.0.1:9"],
        ["query", "add", "q", "--sql", "S", "--registry", "missing.yaml", "--scope", "s"],
    ],
    ids=" ".join,
)
def test_errors_are_one_line_and_a_non_zero_exit(arguments: list[str], tmp_path: Path) -> None:
    """No stack trace reaches a person."""
    (tmp_path / "bad.toml").write_text("listen = 1\n")
    pinned = PinnedConfig("http://127.0.0.1:9", b"c" * 32, (b"a" * 32, b"b" * 32))
    ClientConfig(pinned).save(tmp_path / "client.toml")
    done = dandelion(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error:")


def test_contribute_reports_a_collector_that_is_away(tmp_path: Path) -> None:
    """The receipt says what happened; the exit code says that nothing was delivered."""
    pinned = PinnedConfig("http://127.0.0.1:9", b"c" * 32, (b"a" * 32, b"b" * 32))
    ClientConfig(pinned).save(tmp_path / "client.toml")
    record = 'flight:{"carrier": "UA"}'
    done = dandelion("contribute", "--config", "client.toml", "--record", record, cwd=tmp_path)
    assert done.returncode == 1
    assert "no list of rounds" in done.stdout


def test_identities_are_made_once(tmp_path: Path) -> None:
    """The second call prints the same identity."""
    for kind in ("collector", "helper"):
        first = dandelion("keys", kind, str(tmp_path / kind))
        assert first.returncode == 0, first.stderr
        assert len(first.stdout.strip()) == 64
        assert dandelion("keys", kind, str(tmp_path / kind)).stdout == first.stdout


def test_tokens_are_issued_and_revoked(tmp_path: Path) -> None:
    """A token is printed once; its id ends it."""
    state = str(tmp_path / "c")
    done = dandelion("keys", "token", state, "me", "--scope", "round:read", "--lifetime", "1h")
    assert done.returncode == 0, done.stderr
    prefix, token_id, secret = done.stdout.strip().split("_")
    assert (prefix, len(secret)) == ("dd", 64)
    assert dandelion("keys", "revoke", state, token_id).returncode == 0
    again = dandelion("keys", "revoke", state, token_id)
    assert again.returncode == 1
    assert "no token" in again.stderr


@pytest.mark.parametrize("name", ["collector.example.toml", "helper.example.toml"])
def test_config_show_prints_defaults_and_no_secret(name: str) -> None:
    """Everything a service was told, and what it was not told and assumes."""
    path = Path(__file__).parents[2] / "deploy" / name
    done = dandelion("config", "show", str(path), "--json")
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert "drain_s" in settings
    assert "04" * 32 not in done.stdout
