"""`dandelion verify`: check a release from its published bytes alone (docs/protocol.md 8)."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dandelion.cli.output import Fault, print_fields, print_json, when
from dandelion.cli.tables import print_cells
from dandelion.errors import DandelionError
from dandelion.queries.decode import decode
from dandelion.queries.plan import Plan
from dandelion.verify import VerifiedRelease, verify_release


def verify(
    release: Annotated[Path, typer.Argument(help="The artefact, from GET /v1/releases/{round}.")],
    collector: Annotated[
        str | None, typer.Option(help="Identity to expect, 64 hexadecimal digits.")
    ] = None,
    helper: Annotated[
        list[str] | None, typer.Option(help="Identity to expect; once for each helper.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Check a release offline: signatures, set, count, mask sums, decoding, noise.

    Without --collector and --helper the identities named in the release itself are used: that
    proves that the release is consistent, not whose it is.
    """
    try:
        data = release.read_bytes()
    except OSError as error:
        raise Fault(f"{release}: {error.strerror}") from None
    try:
        checked = verify_release(
            data,
            collector=_identity(collector) if collector else None,
            helpers=tuple(map(_identity, helper)) if helper else None,
        )
    except DandelionError as error:
        raise Fault(f"{release}: NOT valid: {error}") from None
    document = summary(checked)
    if json:
        print_json(document)
        return
    pinned = collector is not None and helper is not None
    print_fields(
        {
            "release": "valid",
            "round": document["round"],
            "query": document["sql"],
            "closed": when(checked.release.descriptor.closes),
            "reports": checked.n,
            "privacy": f"epsilon {document['epsilon']:g}, delta {document['delta']:g} per release",
            "collector": document["collector"],
            **{f"helper {i}": h for i, h in enumerate(document["helpers"], start=1)},
            "identities": "as expected"
            if pinned
            else "those named inside; none was given to compare",
        }
    )
    print_cells(document["cells"], document["group"])


def summary(checked: VerifiedRelease) -> dict[str, Any]:
    """What a verified release says, fit for JSON."""
    d = checked.release.descriptor
    try:
        plan = Plan.parse(d.plan)
    except DandelionError:
        # Signed and sound, but not a plan this version reads: the words are still verified.
        table: dict[str, Any] = {"group": None, "cells": []}
        sql = ""
    else:
        shards = len(checked.release.shards)
        noise = shards * d.m * d.noise_var
        table, sql = decode(plan, checked.sums, checked.n, noise).to_object(), plan.sql
    return {
        "valid": True,
        "round": d.round_id.hex(),
        "sql": sql,
        "n": checked.n,
        "epsilon": checked.epsilon,
        "delta": checked.delta,
        "collector": d.collector.hex(),
        "helpers": [entry.identity.hex() for entry in d.helpers],
        "shards": [
            {"shard": s.shard, "n": s.n, "set": s.set_digest.hex()} for s in checked.release.shards
        ],
        "sums": checked.sums.tolist(),
        "group": table["group"],
        "cells": table["cells"],
    }


def _identity(text: str) -> bytes:
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != 32:
        raise Fault("an identity has 64 hexadecimal digits", code=2)
    return identity
