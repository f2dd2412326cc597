"""Generated types: the bytes they have, what compiles with them and what does not.

`dandelion registry codegen golden/events.yaml --ts` and `--py` write the golden files anew.
"""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from mypy import api

from client_py.events import EventStore
from dandelion.queries.codegen import python, typescript
from dandelion.queries.schema import Registry
from tests.library.queries.strategies import registry_objects

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("golden")
REGISTRY = Registry.from_yaml((GOLDEN / "events.yaml").read_text())
# There once the browser package has been built; without it the golden file alone is compared.
TSC = ROOT / "wasm_stub" / "node_modules" / ".bin" / "tsc"

TS_USE = """
import { registry, typed } from "./events.js";
import type { EventName, Events } from "./events.js";

type Fields = Readonly<Record<string, string | number | null>>;
declare const client: { record(event: string, fields: Fields): Promise<void> };
declare function init(options: {
  registry?: {
    readonly events: Readonly<
      Record<string, { readonly columns: Readonly<Record<string, unknown>> }>
    >;
  };
}): void;

init({ registry });
const record = typed(client.record);
export const name: EventName = "page_view";
export const row: Events["page__view"] = { float: 1.5 };
export const done: Promise<void> = record("page_view", { class: "\\u2028", constructor: null });
void record("page__view", row);
void record("class", {});
"""
TS_WRONG = [
    'record("page_vew", {});',
    'record("page_view", { clas: "é" });',
    'record("page_view", { class: "other" });',
    'record("page_view", { class: 1 });',
    'record("page__view", { float: "1" });',
    'record("page__view", { class: "é" });',
]
PY_USE = """
from collections.abc import Mapping
from events import PageViewEvent, PageViewEvent2, Recorder


def keep(event: str, fields: Mapping[str, object], at: int) -> None: ...


record = Recorder(keep)
row: PageViewEvent = {"class": "\\u2028", "constructor": None}
record.page_view(row, 1)
record.page_view({"class": "\\U0001f600"}, 1)
record.page__view(PageViewEvent2(float=1.5, int=2), 1)
record.class_({}, at=1)
"""
# `keep` above is the `record` of a client's store; this is checked with the rest of the types.
KEEP: Callable[[EventStore, str, Mapping[str, object], int], None] = EventStore.record
PY_WRONG = [
    "record.page_vew({}, 1)",
    'record.page_view({"clas": "é"}, 1)',
    'record.page_view({"class": "other"}, 1)',
    'record.page_view({"class": 1}, 1)',
    'record.page__view({"float": "1"}, 1)',
    'record.page__view({"class": "é"}, 1)',
]


def test_typescript_is_what_it_was() -> None:
    """Byte for byte, so that whoever commits it sees a change."""
    assert typescript(REGISTRY) == (GOLDEN / "events.ts.golden").read_text()


def test_python_is_what_it_was() -> None:
    """Byte for byte."""
    assert python(REGISTRY) == (GOLDEN / "events.py.golden").read_text()


def test_a_typo_does_not_compile_in_typescript(tmp_path: Path) -> None:
    """tsc in its strictest mode takes the good lines, and has an error for each wrong one."""
    if not TSC.exists():
        return
    (tmp_path / "events.ts").write_text(typescript(REGISTRY))
    (tmp_path / "use.ts").write_text(TS_USE)
    head = TS_USE + "\n"
    (tmp_path / "wrong.ts").write_text(head + "\n".join(f"void {line}" for line in TS_WRONG))
    first = head.count("\n") + 1
    options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022"]
    options += ["--module", "nodenext"]
    options += ["--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noUnusedLocals"]
    done = subprocess.run(
        [TSC, *options, "use.ts", "wrong.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    places = [line.partition("): error")[0] for line in done.stdout.splitlines() if "error" in line]
    assert sorted({place.partition(",")[0] for place in places}) == sorted(
        f"wrong.ts({first + index}" for index in range(len(TS_WRONG))
    ), done.stdout


def test_a_typo_does_not_pass_mypy(tmp_path: Path) -> None:
    """The same for Python, for the store of the Python client."""
    (tmp_path / "events.py").write_text(python(REGISTRY))
    (tmp_path / "use.py").write_text(PY_USE)
    (tmp_path / "wrong.py").write_text(PY_USE + "\n".join(PY_WRONG) + "\n")
    first = PY_USE.count("\n") + 1
    report, errors, _ = api.run(
        [
            "--strict",
            "--no-error-summary",
            "--config-file=",
            f"--cache-dir={tmp_path / 'cache'}",
            *(str(tmp_path / name) for name in ("events.py", "use.py", "wrong.py")),
        ]
    )
    assert errors == ""
    found = {
        line.split(": error")[0].removeprefix(f"{tmp_path}/")
        for line in report.splitlines()
        if ": error" in line
    }
    assert found == {f"wrong.py:{first + index}" for index in range(len(PY_WRONG))}, report


@settings(max_examples=25)
@given(registry_objects())
def test_generated_python_always_runs(document: dict[str, object]) -> None:
    """Whatever descriptions and values hold, it is Python, and its columns are those declared."""
    registry = Registry.from_object(document)
    made: dict[str, object] = {}
    exec(compile(python(registry), "events.py", "exec"), made)
    recorded: list[object] = []
    recorder = made["Recorder"](lambda *given: recorded.append(given))  # type: ignore[operator]
    for name in registry.events:
        method = getattr(recorder, name, None) or getattr(recorder, f"{name}_")
        method({}, 1)
    assert recorded == [(name, {}, 1) for name in registry.events]
    hints = [value.__annotations__.keys() for name, value in made.items() if name.endswith("Event")]
    assert next(iter(registry.events.values())).columns.keys() in hints


@pytest.mark.parametrize("generate", [typescript, python])
def test_nothing_hidden_is_in_generated_code(generate: object) -> None:
    """No mark of direction or end of line that an editor does not show."""
    text = generate(REGISTRY)  # type: ignore[operator]
    assert all(line.isprintable() for line in text.split("\n"))
