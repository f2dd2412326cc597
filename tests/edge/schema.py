"""The public interface held against its own OpenAPI document, by cases that schemathesis draws.

Good and bad ones for every operation. In some of the good ones the round and the report are
replaced by real ones, or nobody would ever get past the first refusal. As a program: a campaign of
`CASES` per operation and kind over a collector with an open and a released round, then
schemathesis's own phases (`make fuzz-schema`).
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.core.result import Ok

from collector.store import MemoryStore
from dandelion.params import MEDIA_REPORT_SAFELISTED
from tests.collector.rig import QUERY, masked, rig

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@dataclass(frozen=True)
class Reachable:
    """A collector that holds something: rounds that exist, and reports that the open one takes."""

    url: str
    rounds: Sequence[str]
    open_round: str
    reports: Sequence[bytes]


@asynccontextmanager
async def reachable(folder: Path) -> AsyncIterator[Reachable]:
    """A collector with a released round, an open one, and what can be sent to it."""
    async with rig(folder, MemoryStore()) as it:
        released, d = await it.open()
        await it.send(d, range(3))
        it.clock.reach(d.closes)
        await it.until(released, "released")
        second = QUERY | {"name": "again", "epsilon": "1"}
        assert (await it.admin("POST", "queries", second))[0] == 201
        asked = {"query": "again", "duration_s": 86_400}
        status, opened = await it.admin("POST", "rounds", asked)
        assert status == 201, opened
        found = await it.node.book.find(bytes.fromhex(opened["round"]))
        reports = [masked(found.descriptor, client) for client in range(20)]
        rounds = [released, opened["round"]]
        yield Reachable(it.node.public_url, rounds, opened["round"], reports)


def ask(it: Reachable, cases: int, start: int = 1) -> dict[str, Counter[int]]:
    """Draws so many cases of each kind for every operation; statuses by operation.

    Raises:
        schemathesis.core.failures.FailureGroup: an answer that the document does not allow.
    """
    schema = schemathesis.openapi.from_url(f"{it.url}/openapi.json")
    seen: dict[str, Counter[int]] = {}
    with requests.Session() as session:
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()
            statuses = seen.setdefault(operation.label, Counter())
            # What has no parameter cannot be given a wrong one.
            for mode in MODES if "{" in operation.path else MODES[:1]:
                drawn = operation.as_strategy(generation_mode=mode)

                @seed(start)
                @settings(
                    max_examples=cases,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=drawn, real=st.integers(0, 99))
                def run(case: schemathesis.Case[Any], real: int) -> None:
                    if mode is GenerationMode.POSITIVE:  # noqa: B023 - run at once
                        reach(it, case, real)
                    response = case.call_and_validate(session=session, checks=CHECKS)
                    statuses[response.status_code] += 1  # noqa: B023 - run at once

                run()
    return seen


def reach(it: Reachable, case: schemathesis.Case[Any], real: int) -> None:
    """Makes every second case one of a round that exists, and of those every second report good."""
    if real % 2 and "round" in case.path_parameters:
        case.path_parameters["round"] = it.rounds[real // 2 % len(it.rounds)]
        if case.method == "POST" and real % 4 == 3:
            case.path_parameters["round"] = it.open_round
            case.body = it.reports[real % len(it.reports)]
            case.media_type = MEDIA_REPORT_SAFELISTED


async def phases(
    url: str, names: str, cases: int, *, folder: Path, start: int = 1
) -> tuple[int, str]:
    """Exit status and output of schemathesis's own command, which leaves files in the folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color"),
        *("--phases", names, "--max-examples", str(cases), "--seed", str(start)),
        # A report that the document calls good may still be none: its bytes have a meaning.
        *("--exclude-checks", "positive_data_acceptance"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def campaign(cases: int, start: int) -> int:
    """Both, with counts on standard output; the exit status."""
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        async with reachable(Path(folder)) as it:
            seen = await asyncio.to_thread(ask, it, cases, start)
            for label, statuses in seen.items():
                print(f"{label:40} {statuses.total():6} cases  {dict(sorted(statuses.items()))}")
            names = "coverage,fuzzing,stateful"
            status, output = await phases(it.url, names, cases, folder=Path(folder), start=start)
            print(output)
    return status


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return asyncio.run(campaign(options.cases, options.seed))


if __name__ == "__main__":
    sys.exit(main())
