"""`dandelion registry`: an event schema before it is used (docs/registry.md).

Exit codes: 0, nothing to object to; 1, there is; 2, a file or an option cannot be used.
"""

import json as codec
import math
import random
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from dandelion.cli.output import Fault, out, print_fields, print_json, print_table
from dandelion.cli.tables import number, print_cells
from dandelion.errors import RuleError
from dandelion.params import COHORT_MAX_MAX, HELPERS_MAX, HELPERS_MIN, REPORT_HEADER_BYTES
from dandelion.privacy.accounting import noise_var_for, rho_units
from dandelion.queries.codegen import python, typescript
from dandelion.queries.decode import decode
from dandelion.queries.diff import diff
from dandelion.queries.expect import Expected, expected
from dandelion.queries.lint import Audience, lint
from dandelion.queries.plan import Plan
from dandelion.queries.registry_source import SchemaRefused, Source, read_source
from dandelion.queries.schema import EventSchema, Registry, json_schema
from dandelion.queries.sql import Compiled, compile_query
from dandelion.queries.synthetic import simulated_sums
from dandelion.simulation import released_sums

registry = typer.Typer(no_args_is_help=True, help="What is declared: check, compare, try out.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file that declares the events.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Clients = Annotated[int, typer.Option(min=1, max=COHORT_MAX_MAX, help="Clients that answer.")]
Helpers = Annotated[
    int, typer.Option(min=HELPERS_MIN, max=HELPERS_MAX, help="Helpers that add noise.")
]
Epsilon = Annotated[str, typer.Option(help="Promise of one release to one client.")]
Delta = Annotated[str, typer.Option(help="Its small failure probability.")]

# Rows that `simulate --sample` makes at most.
_SAMPLE_ROWS_MAX: Final = 50_000_000


@registry.command("lint")
def lint_command(
    file: File,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as faults.")] = False,
    clients: Clients = 10_000,
    epsilon: Epsilon = "1",
    delta: Delta = "1e-8",
    helpers: Helpers = 2,
    on: Annotated[
        str | None, typer.Option(metavar="DAY", help="Judge expiry as of this day; else today.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Name faults and warnings, each with line and column.

    Domains and bounds are judged for the clients and the promise given. Exit codes: 0, no faults;
    1, faults, or with --strict warnings; 2, the file cannot be read.
    """
    noise_var = partial(_noise_var, epsilon=epsilon, delta=delta)
    noise_var(1)  # an epsilon of "much" is refused before anything is judged by it
    audience = Audience(clients, helpers, noise_var, f"epsilon {epsilon}, delta {delta}")
    found = lint(_text(file), audience, _day(on))
    errors = sum(each.severity == "error" for each in found)
    warnings = len(found) - errors
    if json:
        findings = [each.to_object() for each in found]
        print_json({"errors": errors, "warnings": warnings, "findings": findings})
    else:
        for each in found:
            out.print(f"{file}:{each}", markup=False, soft_wrap=True)
        out.print(f"{_many(errors, 'fault')}, {_many(warnings, 'warning')}")
    if errors or (strict and warnings):
        raise typer.Exit(1)


@registry.command("diff")
def diff_command(
    old: Annotated[Path, typer.Argument(metavar="OLD")],
    new: Annotated[Path, typer.Argument(metavar="NEW")],
    json: AsJson = False,
) -> None:
    """Name what weakens privacy from OLD to NEW, what breaks questions, and what else changed.

    Exit codes: 0, no change weakens privacy or breaks a question; 1, some do; 2, a file cannot be
    used.
    """
    (before, old_source), (after, new_source) = _load(old), _load(new)
    changes = diff(before, after)
    weaken, break_ = (sum(getattr(it, name) for it in changes) for name in ("weakens", "breaks"))
    if json:
        print_json(
            {"weakens": weaken, "breaks": break_, "changes": [it.to_object() for it in changes]}
        )
    else:
        for change in changes:
            file, source = (old, old_source) if change.removed else (new, new_source)
            line, column = source.place(change.path, key=True)
            marks = (change.weakens and "weakens privacy", change.breaks and "breaks questions")
            kind = ", ".join(mark for mark in marks if mark) or "note"
            text = f"{file}:{line}:{column}: {kind}: {change.name}: {change.message}"
            out.print(text, markup=False, soft_wrap=True)
        out.print(
            f"{_many(len(changes), 'change')}: {weaken} weaken privacy, {break_} break questions"
        )
    if weaken or break_:
        raise typer.Exit(1)


@registry.command("codegen")
def codegen_command(
    file: File,
    ts: Annotated[bool, typer.Option("--ts", help="TypeScript, for the browser package.")] = False,
    py: Annotated[bool, typer.Option("--py", help="Python, for client_py.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
) -> None:
    """Write types of the events, so that a misspelt name does not compile."""
    if ts == py:
        raise Fault("give one of --ts and --py", code=2)
    text = (typescript if ts else python)(_load(file)[0])
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise Fault(f"{output}: {error.strerror}", code=2) from None


@registry.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a registry, for editors."""
    typer.echo(codec.dumps(json_schema(), indent=2, ensure_ascii=False))


@registry.command("simulate")
def simulate_command(
    file: File,
    sql: Annotated[str, typer.Option(help="The question.")],
    clients: Clients = 10_000,
    epsilon: Epsilon = "1",
    delta: Delta = "1e-8",
    helpers: Helpers = 2,
    rows_max: Annotated[
        int | None, typer.Option(help="Rows of one client that count; else as the registry says.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Draw rows and noise, and show a release.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of rows and noise of the sample.")] = 1,
    json: AsJson = False,
) -> None:
    """Say what a question would cost and how far off its answers would be; nothing is spent.

    Errors are those of the noise, from the plan. With --sample rows are drawn evenly from what is
    declared, added up without cryptography, and released with noise as helpers draw it.
    """
    declared = _load(file)[0]
    try:
        compiled = compile_query(
            sql,
            declared,
            name="simulate",
            epsilon=epsilon,
            delta=delta,
            rows_max=rows_max,
            today=_day(None),
        )
        noise_var = _noise_var(compiled.l2sq, epsilon=epsilon, delta=delta)
        document = _document(compiled, noise_var, clients, helpers)
    except RuleError as refused:
        raise Fault(refused.detail) from None
    plan = compiled.parsed
    foreseen = expected(plan, helpers * noise_var, clients)
    document["outputs"] = [each.to_object() for each in foreseen]
    if sample:
        event = declared.events[plan.event]
        document["sample"] = _sample(plan, event, clients, helpers, noise_var, seed)
    if json:
        print_json(document)
        return
    print_fields({name: _plain(value) for name, value in document.items() if _is_plain(value)})
    _print_expected(foreseen)
    if sample:
        print_cells(document["sample"]["cells"], plan.group.column if plan.group else None)
        out.print(
            "{intervals_that_hold:,} of {intervals:,} intervals hold the exact answer over the "
            "rows that counted".format(**document["sample"])
        )


def _document(compiled: Compiled, noise_var: int, clients: int, helpers: int) -> dict[str, Any]:
    plan = compiled.parsed
    width = compiled.width(clients, noise_var, helpers)
    return {
        "question": plan.sql,
        "clients": clients,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "rows_max": plan.rows_max,
        "helpers": helpers,
        "noise_var": noise_var,
        "noise_sd": math.sqrt(helpers * noise_var),
        "rho_units": rho_units(compiled.l2sq, noise_var),
        "slots": compiled.slots,
        "width": width,
        "report_bytes": REPORT_HEADER_BYTES + compiled.slots * width // 8,
    }


def _sample(
    plan: Plan, event: EventSchema, clients: int, helpers: int, noise_var: int, seed: int
) -> dict[str, Any]:
    """One release of drawn rows, beside the exact answers over the rows that counted."""
    if clients * plan.rows_max > _SAMPLE_ROWS_MAX:
        raise Fault(
            f"--sample draws at most {_SAMPLE_ROWS_MAX:,} rows; lower --clients or --rows-max",
            code=2,
        )
    exact = simulated_sums(plan, event, clients, np.random.default_rng(abs(seed)))
    # The noise of a simulation keeps no secret, so that it can be drawn again.
    noisy = released_sums(exact, noise_var, helpers, random.Random(seed).randbytes)  # noqa: S311
    cells = decode(plan, noisy, clients, helpers * noise_var).to_rows()
    truth = [cell.estimate for cell in decode(plan, exact, clients, 0).cells]
    shown = [cell | {"truth": value} for cell, value in zip(cells, truth, strict=True)]
    holds = [_holds(cell) for cell in shown if not cell["withheld"] and cell["truth"] is not None]
    return {
        "seed": seed,
        "intervals": len(holds),
        "intervals_that_hold": sum(holds),
        "cells": shown,
    }


def _holds(cell: dict[str, Any]) -> bool:
    return bool(cell["ci_low"] <= cell["truth"] <= cell["ci_high"])


def _print_expected(foreseen: tuple[Expected, ...]) -> None:
    columns = ["output", ">cells", ">rows in each", ">std error", ">95 % interval", ">at most"]
    rows = []
    for each in foreseen:
        errors = ["withheld: too few rows", "", ""]
        if each.std_error is not None and each.ci_half is not None:
            errors = [
                number(each.std_error, each.std_error / 100),
                f"± {number(each.ci_half, each.ci_half / 100)}",
                ""
                if each.std_error == each.std_error_most
                else f"std error {number(each.std_error_most, each.std_error / 100)}",
            ]
        rows.append([each.name, f"{each.cells:,}", number(each.rows, 0.1), *errors])
    print_table("Expected, for one row of each client, spread evenly", columns, rows)


def _noise_var(l2sq: int, *, epsilon: str, delta: str) -> int:
    try:
        return noise_var_for(l2sq, float(epsilon), float(delta))
    except (ValueError, OverflowError) as error:
        instead = "write for example --epsilon 1 --delta 1e-8"
        raise Fault(f"epsilon {epsilon}, delta {delta}: {error}; {instead}", code=2) from None


def _load(path: Path) -> tuple[Registry, Source]:
    try:
        source = read_source(_text(path))
        return Registry.from_source(source), source
    except SchemaRefused as refused:
        raise Fault(f"{path}: {refused.detail}", code=2) from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise Fault(f"{path}: {error.strerror}", code=2) from None
    except UnicodeDecodeError as error:
        raise Fault(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8", code=2
        ) from None


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Fault(f"{text!r} is not a day such as 2027-06-01", code=2) from None


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _plain(value: str | int | float) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:,.6g}"
        if isinstance(value, float)
        else f"{value:,}"
    )
