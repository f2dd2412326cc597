"""`dandelion contribute` and `simulate`: one client, or many of them."""

import asyncio
import json as codec
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from client_py.client import Client
from client_py.config import ClientConfig, ConfigError
from client_py.fleet import Behaviour, run_fleet
from client_py.receipts import Outcome, Receipt
from client_py.sqlite_store import SqliteStore
from client_py.transport import HttpTransport, TransportError
from dandelion.cli import flights
from dandelion.cli.deployment import find
from dandelion.cli.flights import EVENT, Unit
from dandelion.cli.output import Fault, print_fields, print_json, steps

ClientFile = Annotated[
    Path | None, typer.Option("--config", help="Client TOML file; else that of `dandelion up`.")
]


def contribute(
    config: ClientFile = None,
    state: Annotated[
        Path, typer.Option(help="This client's own events, ledger and pending reports.")
    ] = Path("client.sqlite3"),
    record: Annotated[
        list[str] | None,
        typer.Option(help='EVENT:JSON to record first, such as \'flight:{"carrier":"UA"}\'.'),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Answer the open rounds once, as one client, and print the receipts.

    Events are recorded in the local store and never leave it; only masked sums of clipped values
    do.
    """
    settings = _load(config)
    events = [_event(text) for text in record or []]
    try:
        receipts = asyncio.run(_contribute(settings, state, events))
    except (OSError, ValueError) as error:
        raise Fault(str(error)) from None
    if json:
        print_json({"receipts": [receipt.to_object() for receipt in receipts]})
        return
    if not receipts:
        typer.echo("nothing to answer")
    for receipt in receipts:
        typer.echo(receipt.in_words())
    if not all(r.outcome.delivered or r.outcome is Outcome.SKIPPED for r in receipts):
        raise Fault("not everything was delivered; the lines above say why")


async def _contribute(
    settings: ClientConfig, state: Path, events: list[tuple[str, dict[str, Any]]]
) -> list[Receipt]:
    store = SqliteStore(state)
    try:
        for event, fields in events:
            store.events.record(event, fields, int(time.time()))
        async with HttpTransport(settings.pinned.endpoint) as transport:
            client = Client(settings.pinned, settings.policy, store, transport)
            return await client.contribute(early=True)
    finally:
        store.close()


def simulate(
    clients: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Which flights the clients hold.")] = 1,
    unit: Annotated[Unit, typer.Option(help="Whose flights one client holds.")] = Unit.FLIGHT,
    config: ClientFile = None,
    connections: Annotated[int, typer.Option(min=1, help="Clients busy at a time.")] = 64,
    never_send: Annotated[float, typer.Option(min=0, max=1, help="Share that vanishes.")] = 0.0,
    send_twice: Annotated[float, typer.Option(min=0, max=1, help="Share that repeats.")] = 0.0,
    lose_answer: Annotated[
        float, typer.Option(min=0, max=1, help="Share that loses the first answer and retries.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Let many clients that hold real flights answer the open rounds of a running deployment."""
    settings = _load(config)
    with steps(quiet=json) as progress:
        with progress.step("records", "Reading flights"):
            rows = flights.clients(unit, clients, seed)
        with progress.step("contribute", f"{clients:,} clients contribute", clients) as bar:
            try:
                result = asyncio.run(
                    run_fleet(
                        settings.pinned,
                        settings.policy,
                        [{EVENT: row} for row in rows],
                        connections=connections,
                        behaviour=Behaviour(never_send, send_twice, lose_answer),
                        seed=seed,
                        progress=bar.set,
                    )
                )
            except TransportError as error:
                raise Fault(f"cannot fetch the open rounds: {error}") from None
    document = {
        "clients": clients,
        "outcomes": dict(result.outcomes),
        "sent_again": dict(result.again),
        "acknowledged": {name: len(done) for name, done in result.acknowledged.items()},
        "reports_per_s": round(result.rate, 1),
        "seconds": progress.seconds,
    }
    if json:
        print_json(document)
        return
    print_fields(
        {
            "outcomes": ", ".join(f"{k} {v:,}" for k, v in result.outcomes.items()) or "none",
            **{f"round {k}": f"{len(v):,} acknowledged" for k, v in result.acknowledged.items()},
            "rate": f"{result.rate:,.0f} reports/s",
        }
    )
    if not result.acknowledged:
        raise Fault("no report was acknowledged; is a round open, and does the policy allow it?")


def _load(config: Path | None) -> ClientConfig:
    if config is None:
        saved = find().client_config
        if saved is None:
            raise Fault("no client configuration: give --config")
        config = Path(saved)
    try:
        return ClientConfig.load(config)
    except ConfigError as error:
        raise Fault(f"{config}: {error}") from None
    except OSError as error:
        raise Fault(f"{config}: {error.strerror}") from None


def _event(text: str) -> tuple[str, dict[str, Any]]:
    event, colon, fields = text.partition(":")
    try:
        row = codec.loads(fields)
    except ValueError:
        row = None
    if not colon or not isinstance(row, dict):
        raise Fault('--record takes EVENT:JSON, such as \'flight:{"carrier":"UA"}\'', code=2)
    return event, row
