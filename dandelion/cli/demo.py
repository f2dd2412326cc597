"""`dandelion demo`: the whole path on one machine, truth beside estimate.

Everything is what a deployment uses: processes with their own state and identities, the client
library, real HTTP, real noise. What is missing is independence, and the browsers.

Rounds have a fixed closing time, before which no helper answers. So that the demonstration neither
waits for nothing nor closes on clients still on their way, a pilot round measures how fast this
machine is; too small to be unmasked, it also shows a round that ends `abandoned`.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from client_py.config import Policy
from client_py.fleet import FleetResult, run_fleet
from dandelion.cli import flights
from dandelion.cli.flights import EVENT, Row, Unit
from dandelion.cli.http import Api
from dandelion.cli.output import Fault, Steps, err, out, print_json, steps
from dandelion.cli.stack import Settings, Stack
from dandelion.cli.tables import print_cells
from dandelion.cli.verify import summary
from dandelion.errors import DandelionError
from dandelion.queries.decode import truth
from dandelion.queries.plan import Plan
from dandelion.verify import verify_release

SCOPE: Final = "flights"
QUERIES: Final = {
    "delay-by-carrier": (
        "SELECT carrier, COUNT(*), AVG(dep_delay) FROM flight GROUP BY carrier",
        "How many flights each carrier had, and how late they left",
    ),
    "distance": ("SELECT HISTOGRAM(distance, 20) FROM flight", "How far the flights went"),
}
_PILOT: Final = 900
_PILOT_S: Final = 10
# The fleet may be this much slower than the pilot before late clients are turned away.
_MARGIN: Final = 1.3
_SPARE_S: Final = 3
_RELEASE_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Options:
    """What a person may vary."""

    clients: int
    seed: int
    epsilon: float
    unit: Unit
    rows_max: int
    workers: int

    @property
    def cohort_min(self) -> int:
        """A thousand, or half the clients where there are fewer than two thousand."""
        return max(2, min(1_000, self.clients // 2))


def demo(
    clients: Annotated[int, typer.Option(min=10, max=1_000_000, help="How many.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Which records the clients hold.")] = 1,
    epsilon: Annotated[
        float, typer.Option(min=0.01, max=10, help="Promise of each release, at delta 1e-8.")
    ] = 1.0,
    unit: Annotated[Unit, typer.Option(help="Whose records one client holds.")] = Unit.FLIGHT,
    rows_max: Annotated[int, typer.Option(min=1, help="Rows of one client that count.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Collector processes.")] = 1,
    keep: Annotated[bool, typer.Option(help="Leave it running until Control-C.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where state goes; else a new one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Ask two questions of simulated clients that hold real flights, and show truth beside answer.

    Starts a store, a collector and two helpers, lets every client send one masked report per
    question over HTTP, closes the rounds, unmasks, verifies the releases offline and cleans up.
    """
    options = Options(clients, seed, epsilon, unit, rows_max, workers)
    made = folder is None
    folder = folder or Path(tempfile.mkdtemp(prefix="dandelion-"))
    try:
        with steps(quiet=json) as progress:
            stack = Stack(_settings(options, folder))
            try:
                document = asyncio.run(_Demo(options, stack, progress).run())
                if keep:
                    _show(document, json=json)
                    _wait(stack)
            finally:
                with progress.step("clean_up", "Stopping the processes"):
                    stack.stop()
        if not keep:
            _show(document, json=json)
    finally:
        if made:
            shutil.rmtree(folder, ignore_errors=True)


def _settings(options: Options, folder: Path) -> Settings:
    # The policy of clients that trust this demonstration with exactly what it asks for.
    policy = Policy(
        cohort_min=options.cohort_min,
        epsilon_round=options.epsilon,
        epsilon_period=4 * options.epsilon + 1,
    )
    return Settings(
        folder=folder,
        scopes=(SCOPE,),
        cohort_min=options.cohort_min,
        policy=policy,
        redis_url=os.environ.get("DANDELION_REDIS_URL") or None,
        workers=options.workers,
        epsilon_round=options.epsilon,
        epsilon_period=4 * options.epsilon + 1,
    )


class _Demo:
    """One run; `run` reads from top to bottom."""

    def __init__(self, options: Options, stack: Stack, progress: Steps) -> None:
        self._options = options
        self._stack = stack
        self._progress = progress

    async def run(self) -> dict[str, Any]:
        """All stages. Returns what `--json` prints."""
        o, step = self._options, self._progress.step
        with step("records", "Reading flights"):
            rows = await asyncio.to_thread(flights.clients, o.unit, o.clients, o.seed)
        with step("start", "Starting store, collector and helpers"):
            await asyncio.to_thread(self._stack.start)
        api = Api(self._stack.deployment)
        for name, (sql, words) in QUERIES.items():
            await api.admin_async("POST", "/admin/v1/queries", self._query(name, sql, words))
        with step("pilot", "Measuring this machine with a pilot round"):
            rate = await self._pilot(api, rows)
        duration = _SPARE_S + int(_MARGIN * o.clients * len(QUERIES) / rate)
        rounds = {name: await self._open(api, name, duration) for name in QUERIES}
        with step("contribute", f"{o.clients:,} clients contribute", o.clients) as bar:
            fleet = await self._contribute(api, rounds, rows, bar.set)
        for round_id in rounds.values():
            await api.admin_async("POST", f"/admin/v1/rounds/{round_id}/close")
        with step("release", "Closing, unmasking and releasing"):
            await self._released(api, rounds)
        with step("verify", "Verifying the releases offline"):
            results = [
                self._result(name, round_id, await api.release(round_id), fleet, rows)
                for name, round_id in rounds.items()
            ]
        return {
            "clients": o.clients,
            "seed": o.seed,
            "unit": str(o.unit),
            "outcomes": dict(fleet.outcomes),
            "reports_per_s": round(fleet.rate, 1),
            "results": results,
            "seconds": self._progress.seconds,
        }

    def _query(self, name: str, sql: str, words: str) -> dict[str, object]:
        o = self._options
        registry = files("dandelion.queries").joinpath("examples/flights.yaml").read_text("utf-8")
        return {
            "name": name,
            "sql": sql,
            "registry": registry,
            "scope": SCOPE,
            "epsilon": f"{o.epsilon:g}",
            "delta": "1e-8",
            "cohort_min": o.cohort_min,
            "cohort_max": max(1_000, 2 * o.clients),
            "rows_max": o.rows_max,
            "description": words,
        }

    async def _open(self, api: Api, query: str, duration_s: int) -> str:
        body = {"query": query, "duration_s": duration_s}
        document = await api.admin_async("POST", "/admin/v1/rounds", body)
        return str(document["round"])

    async def _pilot(self, api: Api, rows: Sequence[Sequence[Row]]) -> float:
        """Reports per second that a few clients reach; their rounds stay below cohort_min."""
        few = min(_PILOT, self._options.cohort_min - 1)
        rounds = [await self._open(api, name, _PILOT_S) for name in QUERIES]
        envelopes = [await api.envelope(round_id) for round_id in rounds]
        config = self._stack.client_config
        clients = [{EVENT: row} for row in rows[:few]]
        # The first few find everything cold and are not measured.
        for some in (clients[: few // 4], clients[few // 4 :]):
            result = await run_fleet(config.pinned, config.policy, some, rounds=envelopes)
        for round_id in rounds:
            await api.admin_async("POST", f"/admin/v1/rounds/{round_id}/close")
        if not result.acknowledged:
            raise Fault(f"no pilot client was served: {dict(result.outcomes)}")
        return result.rate

    async def _contribute(
        self,
        api: Api,
        rounds: dict[str, str],
        rows: Sequence[Sequence[Row]],
        progress: Callable[[int], None],
    ) -> FleetResult:
        config = self._stack.client_config
        envelopes = [await api.envelope(round_id) for round_id in rounds.values()]
        return await run_fleet(
            config.pinned,
            config.policy,
            [{EVENT: row} for row in rows],
            rounds=envelopes,
            seed=self._options.seed,
            progress=progress,
        )

    async def _released(self, api: Api, rounds: dict[str, str]) -> None:
        deadline = time.monotonic() + _RELEASE_TIMEOUT_S
        waiting = set(rounds.values())
        while waiting:
            for round_id in sorted(waiting):
                document = await api.admin_async("GET", f"/admin/v1/rounds/{round_id}")
                if document["phase"] == "released":
                    waiting.discard(round_id)
                elif document["phase"] in ("abandoned", "damaged"):
                    reason = document.get("reason") or ""
                    raise Fault(f"round {round_id} ended {document['phase']}: {reason}")
                # A round that has not closed yet is waited for as long as that takes.
                deadline = max(deadline, time.monotonic() + document["closes"] - time.time())
            if failed := self._stack.failed():
                raise Fault(failed)
            if time.monotonic() > deadline:
                raise Fault(f"no release after {_RELEASE_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.2)

    def _result(
        self,
        name: str,
        round_id: str,
        release: bytes,
        fleet: FleetResult,
        rows: Sequence[Sequence[Row]],
    ) -> dict[str, Any]:
        """The released table, each cell with the true answer over the acknowledged clients."""
        pinned = self._stack.client_config.pinned
        try:
            checked = verify_release(release, collector=pinned.collector, helpers=pinned.helpers)
        except DandelionError as error:
            raise Fault(f"the release of {name} is NOT valid: {error}") from None
        document = summary(checked)
        acknowledged = fleet.acknowledged.get(round_id, [])
        plan = Plan.parse(checked.release.descriptor.plan)
        exact = truth(plan, (rows[index] for index in acknowledged))
        cells = [
            cell | {"truth": true.value, "truth_unclamped": true.unclamped}
            for cell, true in zip(document["cells"], exact, strict=True)
        ]
        known = [c for c in cells if not c["withheld"] and c["truth"] is not None]
        inside = sum(c["ci_low"] <= c["truth"] <= c["ci_high"] for c in known)
        if checked.n != len(acknowledged):
            raise Fault(f"{checked.n} reports were summed, {len(acknowledged)} acknowledged")
        del document["sums"]
        return document | {
            "query": name,
            "acknowledged": len(acknowledged),
            "cells": cells,
            "inside": inside,
            "of": len(known),
            "bytes_per_report": checked.release.descriptor.report_bytes,
            "exact_truth": plan.rows_max >= max(map(len, rows), default=0),
        }


def _show(document: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(document)
        return
    for result in document["results"]:
        out.print()
        out.print(f"[bold]{result['sql']}[/bold]")
        print_cells(result["cells"], result["group"])
        out.print(
            f"{result['n']:,} reports of {result['bytes_per_report']} bytes, each exactly once; "
            f"epsilon {result['epsilon']:g}, delta {result['delta']:g} for each client. "
            f"{result['inside']} of {result['of']} intervals hold the truth (95 % are expected to)."
        )
        _show_clamping(result)
        if not result["exact_truth"]:
            out.print(
                "Some clients hold more rows than count; the truth is over all of them, the answer"
                " over a random sample. --rows-max lets more count, at the price of more noise."
            )
    seconds = "  ".join(f"{name} {s:.1f} s" for name, s in document["seconds"].items())
    err.print(f"\n{document['reports_per_s']:,.0f} reports/s. {seconds}")


def _show_clamping(result: dict[str, Any]) -> None:
    """Says how far values beyond their declared bounds move the truth."""
    moved = [
        abs(cell["truth"] - cell["truth_unclamped"])
        for cell in result["cells"]
        if cell["truth"] is not None and cell["truth_unclamped"] not in (None, cell["truth"])
    ]
    if moved:
        out.print(
            f"Values beyond their declared bounds are clamped; without that the truth of"
            f" {len(moved)} cells would differ, by {max(moved):.2g} at the most."
        )


def _wait(stack: Stack) -> None:
    """Until Control-C, or until a process ends by itself."""
    err.print(f"Running at {stack.deployment.public}; Control-C stops it.")
    try:
        while not (failed := stack.failed()):
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    raise Fault(failed)
