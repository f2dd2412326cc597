"""`dandelion query`, `rounds` and `results`: an analyst's and an operator's commands."""

import csv
import io
import sys
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dandelion.cli.deployment import find
from dandelion.cli.http import Api
from dandelion.cli.output import Fault, out, print_fields, print_json, print_table, when
from dandelion.cli.tables import print_cells

query = typer.Typer(no_args_is_help=True, help="What may be asked.")
rounds = typer.Typer(no_args_is_help=True, help="Collections of a query.")
results = typer.Typer(no_args_is_help=True, help="What came out.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Server = Annotated[
    str | None, typer.Option(help="Public address of the collector [env: DANDELION_PUBLIC_URL].")
]
Admin = Annotated[
    str | None, typer.Option(help="Admin address of the collector [env: DANDELION_ADMIN_URL].")
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the bearer token [env: DANDELION_TOKEN].")
]

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _api(server: str | None, admin: str | None = None, token_file: Path | None = None) -> Api:
    # An admin command needs no public address; a deployment always has one.
    return Api(find(public=server or admin, admin=admin, token_file=token_file))


def seconds(text: str) -> int:
    """A duration such as 90s, 10m, 2h or 1d.

    Raises:
        Fault: it is not one.
    """
    number, unit = text[:-1], text[-1:]
    if text.isdecimal():
        number, unit = text, "s"
    if not number.isdecimal() or unit not in _UNITS or int(number) == 0:
        raise Fault(f"{text!r} is not a duration such as 90s, 10m, 2h or 1d", code=2)
    return int(number) * _UNITS[unit]


@query.command("add")
def query_add(
    name: Annotated[str, typer.Argument(help="A short name, a-z 0-9 . _ -")],
    sql: Annotated[str, typer.Option(help="The question.")],
    registry: Annotated[Path, typer.Option(help="YAML file that declares the events.")],
    scope: Annotated[str, typer.Option(help="Whose budget pays.")],
    epsilon: Annotated[str, typer.Option(help="Promise of one release to one client.")] = "1",
    delta: Annotated[str, typer.Option(help="Its small failure probability.")] = "1e-8",
    cohort_min: Annotated[int, typer.Option(help="Never unmasked below this.")] = 1_000,
    cohort_max: Annotated[int, typer.Option(help="Most reports of one round.")] = 1_000_000,
    rows_max: Annotated[
        int | None, typer.Option(help="Rows of one client that count; else as the registry says.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people, in plain words.")] = "",
    server: Server = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Declare a question. It is compiled and checked at once; nothing is collected yet."""
    try:
        text = registry.read_text("utf-8")
    except OSError as error:
        raise Fault(f"{registry}: {error.strerror}") from None
    body = {
        "name": name,
        "sql": sql,
        "registry": text,
        "scope": scope,
        "epsilon": epsilon,
        "delta": delta,
        "cohort_min": cohort_min,
        "cohort_max": cohort_max,
        "rows_max": rows_max,
        "description": description,
    }
    document = _api(server, admin, token_file).admin("POST", "/admin/v1/queries", body)
    if json:
        print_json(document)
    else:
        print_fields(_flat(document))


@query.command("list")
def query_list(server: Server = None, json: AsJson = False) -> None:
    """All questions that may be asked."""
    document = _api(server).get("/v1/queries")
    if json:
        print_json(document)
        return
    rows = [
        (q["name"], q["sql"], f"{q['epsilon']} / {q['delta']}", q["cohort_min"])
        for q in document["queries"]
    ]
    print_table("", ["name", "question", "epsilon / delta", ">cohort min"], rows)


@query.command("show")
def query_show(name: str, server: Server = None, json: AsJson = False) -> None:
    """One question: its SQL, its promise, and what a client would send, in plain words."""
    for document in _api(server).get("/v1/queries")["queries"]:
        if document["name"] == name:
            if json:
                print_json(document)
            else:
                print_fields(_flat(document))
                out.print(f"\n{document['words']}", markup=False)
            return
    raise Fault(f"unknown_query: no query is called {name}")


@rounds.command("open")
def rounds_open(
    name: Annotated[str, typer.Argument(help="The query.")],
    duration: Annotated[str, typer.Option("--for", help="How long, such as 10m or 1d.")] = "1h",
    server: Server = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Open a round: helpers make fresh keys and sign, then clients may answer."""
    body = {"query": name, "duration_s": seconds(duration)}
    _round(_api(server, admin, token_file).admin("POST", "/admin/v1/rounds", body), json=json)


@rounds.command("list")
def rounds_list(
    server: Server = None, admin: Admin = None, token_file: TokenFile = None, json: AsJson = False
) -> None:
    """All rounds, newest first."""
    document = _api(server, admin, token_file).admin("GET", "/admin/v1/rounds")
    if json:
        print_json(document)
        return
    rows = [
        (r["round"], r["query"], r["phase"], when(r["closes"]), r.get("reports", ""))
        for r in document["rounds"]
    ]
    print_table("", ["round", "query", "phase", "closes", ">reports"], rows)


@rounds.command("show")
def rounds_show(
    round_id: Annotated[str, typer.Argument(metavar="ROUND")],
    server: Server = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """One round."""
    document = _api(server, admin, token_file).admin("GET", f"/admin/v1/rounds/{round_id}")
    _round(document, json=json)


@rounds.command("close")
def rounds_close(
    round_id: Annotated[str, typer.Argument(metavar="ROUND")],
    server: Server = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Stop taking reports now. Helpers still answer only from the announced closing time on."""
    path = f"/admin/v1/rounds/{round_id}/close"
    _round(_api(server, admin, token_file).admin("POST", path), json=json)


@results.command("show")
def results_show(
    round_id: Annotated[str | None, typer.Argument(metavar="[ROUND]")] = None,
    server: Server = None,
    json: AsJson = False,
) -> None:
    """The table of a round, or without one the rounds that have ended."""
    api = _api(server)
    if round_id is None:
        document = api.get("/v1/releases")
        if json:
            print_json(document)
            return
        rows = [
            (r["round"], r["query"], r["phase"], r.get("reports", ""), when(r["closes"]))
            for r in document["releases"]
        ]
        print_table("", ["round", "query", "phase", ">reports", "closed"], rows)
        return
    document = api.get(f"/v1/releases/{round_id}/table")
    if json:
        print_json(document)
        return
    print_fields(_flat(document | {k: when(document[k]) for k in ("opens", "closes")}))
    print_cells(document["cells"], document["group"])


class Format(StrEnum):
    """Forms of an exported result."""

    JSON = "json"
    CSV = "csv"
    RELEASE = "release"


@results.command("export")
def results_export(
    round_id: Annotated[str, typer.Argument(metavar="ROUND")],
    format: Annotated[
        Format, typer.Option(help="release: the signed artefact that `dandelion verify` checks.")
    ] = Format.JSON,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    server: Server = None,
) -> None:
    """Write a result to a file or to standard output, with intervals and privacy parameters."""
    api = _api(server)
    if format is Format.RELEASE:
        _write(output, api.get_bytes(f"/v1/releases/{round_id}"))
        return
    document = api.get(f"/v1/releases/{round_id}/table")
    if format is Format.JSON:
        if output is None:
            print_json(document)
        else:
            _write(output, (dumps(document, indent=2) + "\n").encode())
        return
    _write(output, _csv(document).encode())


def _csv(document: dict[str, Any]) -> str:
    shared = {k: document.get(k, "") for k in ("round", "query", "reports", "epsilon", "delta")}
    rows = [
        shared | {k: v for k, v in cell.items() if k != "bin"} | _bin(cell)
        for cell in document["cells"]
    ]
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def _bin(cell: dict[str, Any]) -> dict[str, Any]:
    low, high = cell.get("bin") or ("", "")
    return {"bin_low": low, "bin_high": high}


def _write(output: Path | None, data: bytes) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise Fault(f"{output}: {error.strerror}") from None


def _round(document: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(document)
        return
    times = {k: when(document[k]) for k in ("opens", "closes", "expires") if k in document}
    print_fields(_flat(document | times))


def _flat(document: dict[str, Any]) -> dict[str, object]:
    """Fields a person reads at once; nested ones and long bytes are for --json."""
    return {
        k: v for k, v in document.items() if not isinstance(v, dict | list) and len(str(v)) < 400
    }
