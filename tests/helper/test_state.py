"""Configuration, identity, database: what a helper starts from."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dandelion.encoding import identity_of
from dandelion.privacy.accounting import rho_units_for_epsilon
from dandelion.service.config import ConfigError
from dandelion.service.identity import StateError, init_state, read_seed
from helper.__main__ import main
from helper.config import load_config
from helper.store import Store
from tests.helper.builders import Bench, ask_of, closed, reports_of, secret

GOOD = """\
listen = "127.0.0.1:8471"
state_dir = "state"
collectors = ["{hex}"]
token_sha256 = ["{hex}"]

[floors]
cohort_min = 500
lifetime_max_s = 3600
per_round = {{ epsilon = 2.0, delta = 1e-9 }}

[scopes.browsers]
epsilon = 8.0
delta = 1e-9
period_s = 604800

[scopes.tests]
rho_units = 5000
period_s = 60
open_rounds_max = 1
""".format(hex="0a" * 32)


def written(directory: Path, text: str) -> Path:
    """A configuration file."""
    path = directory / "helper.toml"
    path.write_text(text)
    return path


def test_configuration_file(tmp_path: Path) -> None:
    """A file says everything; paths are relative to it."""
    config = load_config(written(tmp_path, GOOD))
    assert config.address == ("127.0.0.1", 8471)
    assert config.state_dir == tmp_path / "state"
    assert config.collector_identities() == {b"\x0a" * 32}
    assert config.token_hashes() == (b"\x0a" * 32,)
    assert config.floors.per_round.units == rho_units_for_epsilon(2.0, 1e-9)
    assert config.scopes["browsers"].units == rho_units_for_epsilon(8.0, 1e-9)
    assert config.scopes["tests"].units == 5_000
    assert config.answer_delay_ms == 1_000


def test_unix_socket(tmp_path: Path) -> None:
    """`unix:` names a socket beside the file."""
    text = GOOD.replace("127.0.0.1:8471", "unix:helper.sock")
    assert load_config(written(tmp_path, text)).address == tmp_path / "helper.sock"


def test_token_file_holds_the_token_itself(tmp_path: Path) -> None:
    """The hash of each token in the file is accepted."""
    (tmp_path / "token").write_text("s3cret\n")
    text = GOOD.replace("token_sha256", 'token_file = "token"\ntoken_sha256')
    expected = hashlib.sha256(b"s3cret").digest()
    assert load_config(written(tmp_path, text)).token_hashes()[1:] == (expected,)


@pytest.mark.parametrize(
    "old,new,named",
    [
        ("cohort_min", "cohort_mim", "floors.cohort_mim"),
        ("cohort_min = 500", "cohort_min = 0", "floors.cohort_min"),
        ("127.0.0.1:8471", "localhost", "listen"),
        ('collectors = ["0', 'collectors = ["G', "collectors.0"),
        ("collectors = [", "collectors = [] # [", "collectors"),
        ("token_sha256", "# token_sha256", "token"),
        ("rho_units = 5000", "rho_units = 5000\nepsilon = 1.0\ndelta = 1e-8", "scopes.tests"),
        ("rho_units = 5000", "", "scopes.tests"),
        ("rho_units = 5000", "epsilon = 1.0", "scopes.tests"),
        ("period_s = 60\n", "", "scopes.tests.period_s"),
        ("[floors]", "[floors", "not TOML"),
    ],
)
def test_configuration_that_cannot_be(tmp_path: Path, old: str, new: str, named: str) -> None:
    """A fault is named by its place; a misspelt floor is not a missing one."""
    with pytest.raises(ConfigError, match=named):
        load_config(written(tmp_path, GOOD.replace(old, new)))


def test_configuration_errors_repeat_no_value(tmp_path: Path) -> None:
    """A token pasted into the wrong field does not appear in the message."""
    text = GOOD.replace("token_sha256 = [", 'token_sha256 = ["s3cret-token", ')
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_token_file_that_cannot_be(tmp_path: Path, content: bytes | None) -> None:
    """A helper without a token lets nobody in, so it does not start."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    text = GOOD.replace("token_sha256 =", 'token_file = "token" #')
    with pytest.raises(ConfigError, match="token_file"):
        load_config(written(tmp_path, text)).token_hashes()


def test_missing_configuration(tmp_path: Path) -> None:
    """A file that is not there is an error of the caller, in one line."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def test_identity_is_made_once(tmp_path: Path) -> None:
    """The seed is private, and a second call keeps it."""
    identity = init_state(tmp_path / "state")
    path = tmp_path / "state" / "identity"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert identity_of(path.read_bytes()) == identity
    assert init_state(tmp_path / "state") == identity
    assert init_state(tmp_path / "another") != identity


def open_to_others(path: Path) -> None:
    """Lets the group read a file."""
    path.chmod(0o640)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"short"), Path.unlink, open_to_others]
)
def test_identity_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """A seed that is cut, gone, or readable by others stops the start."""
    init_state(tmp_path)
    spoil(tmp_path / "identity")
    with pytest.raises(StateError, match="identity"):
        read_seed(tmp_path)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--init` prints the identity; what cannot work ends with one line and status 1."""
    config = written(tmp_path, GOOD)
    assert run(["--config", str(config), "--init"]) == 0
    assert capsys.readouterr().out == init_state(tmp_path / "state").hex() + "\n"
    (tmp_path / "state/identity").unlink()
    assert run(["--config", str(config)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert run(["--config", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def run(arguments: list[str]) -> int:
    """The command with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["helper", *arguments])
        return main()


def test_database_is_durable_and_forgets_thoroughly(tmp_path: Path) -> None:
    """The settings that the durability argument rests on are in force."""
    store = Store(tmp_path / "db", bytes(32))
    pragmas = ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
    found = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    store.close()
    assert found == ["truncate", 3, 1, 1]
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("statement", ["UPDATE ledger SET rho_units = 0", "DELETE FROM ledger"])
async def test_ledger_is_only_appended_to(bench: Bench, statement: str) -> None:
    """The database itself refuses to change or drop an entry."""
    async with bench.helper() as helper:
        await helper.signed_round()
    with (
        closing(sqlite3.connect(bench.database)) as db,
        pytest.raises(sqlite3.IntegrityError, match="only appended"),
    ):
        db.execute(statement)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE ledger SET rho_units = 0 WHERE seq = 1",
        "DELETE FROM ledger WHERE seq = 1",
        "UPDATE ledger SET kind = 'free' WHERE seq = 2",
    ],
)
async def test_changed_ledger_stops_the_start(bench: Bench, tampering: str) -> None:
    """Whoever gets round the triggers breaks the chain; the helper does not start on it."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
    with closing(sqlite3.connect(bench.database)) as db:
        db.execute("DROP TRIGGER ledger_fixed")
        db.execute("DROP TRIGGER ledger_kept")
        db.execute(tampering)
        db.commit()
    with pytest.raises(StateError, match="ledger"):
        async with bench.helper():
            pass


async def test_database_of_another_identity_stops_the_start(bench: Bench) -> None:
    """Signing records of one identity never serve another."""
    async with bench.helper():
        pass
    (bench.state_dir / "identity").write_bytes(secret("another"))
    with pytest.raises(StateError, match="identity"):
        async with bench.helper():
            pass


async def test_file_that_is_no_database_stops_the_start(bench: Bench) -> None:
    """Rubbish in the database's place is said in one line; it is not written over."""
    bench.database.write_bytes(b"rubbish" * 1_000)
    with pytest.raises(StateError, match="not a database"):
        async with bench.helper():
            pass
    assert bench.database.read_bytes() == b"rubbish" * 1_000


async def test_one_process_per_state_directory(bench: Bench) -> None:
    """A second helper over the same state does not start; after the first has ended it does."""
    async with bench.helper():
        with pytest.raises(StateError, match="another helper"):
            async with bench.helper():
                pass
    async with bench.helper():
        pass
