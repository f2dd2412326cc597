"""`dandelion registry` as a person meets it: findings with their places, and exit codes."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dandelion.cli import registry as commands
from dandelion.cli.app import app
from dandelion.cli.output import Fault
from dandelion.queries import lint
from dandelion.queries.schema import CategoryColumn, EventSchema, NumberColumn

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "dandelion" / "queries" / "examples" / "flights.yaml"
BY_CARRIER = "SELECT carrier, COUNT(*), AVG(dep_delay) FROM flight GROUP BY carrier"


def run(*arguments: str | Path) -> Result:
    """Runs `dandelion registry` with these words; a fault of a command is an exception."""
    return CliRunner().invoke(app, ["registry", *map(str, arguments)])


def refused(*arguments: str | Path) -> tuple[str, int]:
    """The line that a command ends with, and its exit code."""
    done = run(*arguments)
    assert isinstance(done.exception, Fault), done.output
    assert done.stdout == ""
    return str(done.exception), done.exception.code


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    """Writes the flights with changes; each must change something."""

    def write(*changes: tuple[str, str], name: str = "new.yaml") -> Path:
        text = FLIGHTS.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("command", ["", "lint", "diff", "codegen", "simulate", "schema"])
def test_every_command_has_help(command: str) -> None:
    """`--help` explains and exits with 0."""
    done = run(*filter(None, [command]), "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout


def test_lint_warns_with_places_and_is_strict_on_demand() -> None:
    """Warnings are no faults, unless --strict."""
    done = run("lint", FLIGHTS)
    assert done.exit_code == 0
    assert f"{FLIGHTS}:4:3: warning: events.flight: write an owner" in done.stdout
    assert done.stdout.endswith("0 faults, 3 warnings\n")
    assert run("lint", FLIGHTS, "--strict").exit_code == 1


def test_lint_names_faults_and_fails(copy: Any) -> None:
    """As lines for people, and as one document for programs."""
    path = copy(("lo: 1,", "lo: 13,"), ("[EWR, JFK, LGA]", "[EWR, NO]"))
    done = run("lint", path)
    assert done.exit_code == 1
    assert f"{path}:15:14: error: events.flight.columns.month: lo must be below hi" in done.stdout
    document = json.loads(run("lint", path, "--json").stdout)
    assert (document["errors"], document["warnings"]) == (2, 0)
    assert [(it["line"], it["column"]) for it in document["findings"]] == [(14, 23), (15, 14)]


def test_lint_judges_expiry_by_the_day_that_is_given(copy: Any) -> None:
    """What will have expired by then is seen today."""
    path = copy(("    columns:", "    expires: 2100-01-01\n    columns:"))
    assert "[expired]" not in run("lint", path).stdout
    assert "[expired]" in run("lint", path, "--on", "2100-01-01").stdout


def test_diff_names_what_weakens_where_it_stands(copy: Any) -> None:
    """Changed lines are those of the new file, removed ones those of the old. Exit code 1."""
    path = copy(("hi: 12,", "hi: 31,"), (", unit: miles", ""))
    done = run("diff", FLIGHTS, path)
    assert done.exit_code == 1
    assert f"{path}:15:36: weakens privacy, breaks questions: events.flight.c" in done.stdout
    assert f"{FLIGHTS}:22:49: weakens privacy, breaks questions: events.flight.c" in done.stdout
    assert done.stdout.endswith("2 changes: 2 weaken privacy, 2 break questions\n")
    document = json.loads(run("diff", FLIGHTS, path, "--json").stdout)
    assert (document["weakens"], document["breaks"]) == (2, 2)
    assert document["changes"][0]["path"] == "events.flight.columns.month.hi"


def test_diff_has_nothing_to_object_to(copy: Any) -> None:
    """Exit code 0 for the same registry, and for changes that do neither."""
    assert run("diff", FLIGHTS, FLIGHTS).exit_code == 0
    done = run("diff", FLIGHTS, copy(("One departure", "A departure")))
    assert done.exit_code == 0
    assert "note: events.flight.description: another description" in done.stdout


def test_codegen_writes_what_it_prints(tmp_path: Path) -> None:
    """To standard output or to a file."""
    path = tmp_path / "events.ts"
    assert run("codegen", FLIGHTS, "--ts", "-o", path).exit_code == 0
    assert path.read_text() == run("codegen", FLIGHTS, "--ts").stdout
    assert "class FlightEvent(TypedDict" in run("codegen", FLIGHTS, "--py").stdout


def test_the_schema_is_the_committed_one() -> None:
    """Byte for byte: what is printed can be redirected into the file."""
    assert run("schema").stdout == (ROOT / "docs" / "registry.schema.json").read_text()


def test_simulate_says_what_it_costs_and_how_far_off_it_is() -> None:
    """From the plan alone: price, size and error of each output."""
    document = json.loads(run("simulate", FLIGHTS, "--sql", BY_CARRIER, "--json").stdout)
    assert document["slots"] == 48
    assert document["report_bytes"] == 49 + 48 * document["width"] // 8
    count, average = document["outputs"]
    assert (count["name"], count["cells"], count["rows"]) == ("COUNT(*)", 16, 625)
    # The figure of docs/privacy.md for this promise and two helpers, per unit of sensitivity.
    assert count["std_error"] == pytest.approx((2 * document["noise_var"]) ** 0.5 / 180)
    assert count["ci_half"] == pytest.approx(1.96 * count["std_error"], rel=1e-4)
    assert average["std_error"] < average["std_error_most"]
    assert "sample" not in document
    shown = run("simulate", FLIGHTS, "--sql", BY_CARRIER)
    assert shown.exit_code == 0
    assert "rows in each" in shown.stdout


def test_a_sample_is_a_release_beside_the_truth() -> None:
    """A hundred thousand clients; the same seed draws the same, another one something else."""
    words = ("--sql", BY_CARRIER, "--clients", "100000", "--sample", "--seed", "3")
    sample = json.loads(run("simulate", FLIGHTS, *words, "--json").stdout)["sample"]
    assert sample["intervals"] == len(sample["cells"]) == 32
    assert sample["intervals_that_hold"] >= 26
    assert sum(cell["truth"] for cell in sample["cells"][::2]) == pytest.approx(100_000)
    assert json.loads(run("simulate", FLIGHTS, *words, "--json").stdout)["sample"] == sample
    words = (*words[:-1], "4")
    assert json.loads(run("simulate", FLIGHTS, *words, "--json").stdout)["sample"] != sample
    assert "of 32 intervals hold the exact answer" in run("simulate", FLIGHTS, *words).stdout


def test_an_average_of_too_few_is_announced() -> None:
    """Before anything is spent."""
    done = run("simulate", FLIGHTS, "--sql", BY_CARRIER, "--clients", "100", "--sample")
    assert "withheld: too few rows" in done.stdout


def test_what_has_expired_cannot_be_tried_out(copy: Any) -> None:
    """As it could not be asked."""
    path = copy(("    columns:", "    expires: 2020-01-01\n    columns:"))
    reason, code = refused("simulate", path, "--sql", BY_CARRIER)
    assert code == 1
    assert reason.startswith("line 1, column 47: event flight expires on 2020-01-01; write a later")


SQL = ("simulate", FLIGHTS, "--sql", BY_CARRIER)


@pytest.mark.parametrize(
    "words, code, reason",
    [
        (("lint", "nowhere.yaml"), 2, "nowhere.yaml: No such file or directory"),
        (("lint", ROOT), 2, "Is a directory"),
        (("lint", FLIGHTS, "--on", "tomorrow"), 2, "not a day such as 2027-06-01"),
        (("lint", FLIGHTS, "--epsilon", "much"), 2, "write for example --epsilon 1"),
        (("lint", FLIGHTS, "--epsilon", "inf"), 2, "write for example --epsilon 1"),
        (("lint", FLIGHTS, "--delta", "2"), 2, "write for example --epsilon 1"),
        (("diff", FLIGHTS, ROOT / "Makefile"), 2, "line "),
        (("codegen", FLIGHTS), 2, "one of --ts and --py"),
        (("codegen", FLIGHTS, "--ts", "-o", "/nowhere/x.ts"), 2, "No such file or directory"),
        ((*SQL, "--epsilon", "much"), 1, "not a decimal number above 0"),
        ((*SQL, "--delta", "1"), 1, "delta"),
        ((*SQL, "--rows-max", "0"), 1, "rows_max must be between 1 and 65535"),
        ((*SQL, "--clients", "4000000", "--rows-max", "60", "--sample"), 2, "lower --clients"),
        (("simulate", FLIGHTS, "--sql", "SELECT MAX(month) FROM flight"), 1, "line 1, column 8"),
    ],
)
def test_a_refusal_names_what_to_write_instead(
    words: tuple[str | Path, ...], code: int, reason: str
) -> None:
    """One line, never a traceback; 2 for what cannot be used, 1 for what is refused."""
    line, found = refused(*words)
    assert found == code
    assert reason in line
    assert "\n" not in line


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Where the first byte is that is not UTF-8."""
    path = tmp_path / "x.yaml"
    path.write_bytes(b"ab\xff")
    assert refused("lint", path) == (f"{path}: byte 2 is not UTF-8; save the file as UTF-8", 2)


def test_rows_of_a_sample_are_limited_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a higher limit the same question is answered."""
    monkeypatch.setattr(commands, "_SAMPLE_ROWS_MAX", 10)
    words = (*SQL, "--clients", "11", "--sample")
    assert refused(*words)[1] == 2
    monkeypatch.setattr(commands, "_SAMPLE_ROWS_MAX", 11)
    assert run(*words).exit_code == 0


PAGE = (ROOT / "docs" / "registry.md").read_text()


def test_the_example_of_the_page_has_nothing_to_object_to(tmp_path: Path) -> None:
    """Before its own day of expiry."""
    path = tmp_path / "page.yaml"
    path.write_text(PAGE.split("```yaml\n")[1].split("```")[0])
    done = run("lint", path, "--on", "2027-01-01")
    assert done.stdout == "0 faults, 0 warnings\n"
    assert "[expired]" in run("lint", path, "--on", "2027-06-01").stdout


def test_the_page_names_every_key_and_every_rule() -> None:
    """What a registry may say, and what is said about it."""
    keys = PAGE.split("## Keys")[1].split("\n## ")[0]
    models = (EventSchema, CategoryColumn, NumberColumn)
    for name in {field for model in models for field in model.model_fields}:
        assert re.search(rf"^\| .*`{name}`", keys, re.MULTILINE), name
    rules = set(re.findall(r'"([a-z]+-[a-z]+|expired|schema)"', inspect.getsource(lint)))
    assert len(rules) == 8
    for rule in rules:
        assert f"`{rule}`" in PAGE, rule
