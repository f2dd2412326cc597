"""The rounds of the demo page: one question, simulated people, and one round after another.

The people are clients of the Python client library with one record each, and their reports take the
same way as that of the browser. A round opens only while somebody has the page open, since every
round takes from the helpers' budgets of the month.

Leaves out: the page and how it is served (`demo_page`), and what the browser does.
"""

import asyncio
import random
import time
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

import yaml

from client_py.config import ClientConfig
from client_py.fleet import run_fleet
from dandelion.cli.http import Api
from dandelion.cli.output import Fault, err

SCOPE: Final = "demo-page"
QUERY: Final = "ways-to-work"
EVENT: Final = "commute"
SQL: Final = "SELECT mode, COUNT(*), AVG(minutes) FROM commute GROUP BY mode"
EPSILON: Final = 1.0
DELTA: Final = "1e-8"
# What the helpers allow the scope, and the page its collector, within 30 days: some 500 rounds.
EPSILON_PERIOD: Final = 30.0
_COHORT_MAX: Final = 20_000
# How each kind of way is spread among the people: its share, and mean and deviation in minutes.
_WAYS: Final = {
    "walk": (0.12, 18, 7),
    "bicycle": (0.21, 24, 9),
    "bus": (0.17, 36, 12),
    "train": (0.19, 52, 16),
    "car": (0.27, 31, 13),
    "other": (0.04, 28, 12),
}
# People answer in groups, spread over the first part of a round.
_GROUP: Final = 100
_SPREAD: Final = 0.35
# Seconds for which somebody who has just asked counts as looking.
_LOOKING_S: Final = 20.0
_RETRY_S: Final = 10.0


@dataclass(frozen=True)
class State:
    """What the page is told of the present round.

    Attributes:
        state: `idle`, `open`, or `waiting` for a fault to pass.
        round_id: 32 hexadecimal digits; empty while there is none.
        opens, closes: Unix seconds.
        people, answered: simulated people, and how many of them were acknowledged.
        reason: the fault.
    """

    people: int
    state: str = "idle"
    round_id: str = ""
    opens: float = 0.0
    closes: float = 0.0
    answered: int = 0
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON. `now` lets a page count down whatever its own clock says."""
        return {
            "state": self.state,
            "round": self.round_id,
            "opens": self.opens,
            "closes": self.closes,
            "people": self.people,
            "answered": self.answered,
            "reason": self.reason,
            "now": time.time(),
        }


class DemoRounds:
    """Opens rounds of the one question and lets the people answer them, until cancelled."""

    def __init__(
        self, api: Api, config: ClientConfig, *, cohort_min: int, people: int, duration_s: int
    ) -> None:
        self._api = api
        self._config = config
        self._cohort_min = cohort_min
        self._duration_s = duration_s
        self._people = commuters(people)
        self._asked = asyncio.Event()
        self._seen = float("-inf")
        self.state = State(people)

    def look(self) -> dict[str, Any]:
        """The present state, for somebody who is looking at the page now."""
        self._seen = asyncio.get_running_loop().time()
        self._asked.set()
        return self.state.document()

    async def run(self) -> None:
        """Declares the question, then opens one round after another."""
        while True:
            await self._somebody()
            try:
                await self._declare()
                await self._round()
            except Fault as fault:
                if self.state.reason != str(fault):
                    err.print(f"no round for the demo page: {fault}", markup=False)
                self.state = State(self.state.people, "waiting", reason=str(fault))
                await asyncio.sleep(_RETRY_S)

    async def _somebody(self) -> None:
        """Waits until somebody looks at the page."""
        if asyncio.get_running_loop().time() - self._seen > _LOOKING_S:
            self.state = State(self.state.people)
            self._asked.clear()
            await self._asked.wait()

    async def _declare(self) -> None:
        for query in (await self._api.get_async("/v1/queries"))["queries"]:
            if query["name"] == QUERY:
                if query["cohort_min"] != self._cohort_min:
                    raise Fault(
                        f"this folder's question has a cohort minimum of {query['cohort_min']}, "
                        f"not {self._cohort_min}: choose another folder"
                    )
                return
        body = {
            "name": QUERY,
            "sql": SQL,
            "registry": registry(),
            "scope": SCOPE,
            "epsilon": f"{EPSILON:g}",
            "delta": DELTA,
            "cohort_min": self._cohort_min,
            "cohort_max": max(_COHORT_MAX, 2 * len(self._people)),
            "rows_max": 1,
            "description": "How people get to work, and how long it takes them",
        }
        await self._api.admin_async("POST", "/admin/v1/queries", body)

    async def _round(self) -> None:
        body = {"query": QUERY, "duration_s": self._duration_s}
        document = await self._api.admin_async("POST", "/admin/v1/rounds", body)
        self.state = State(
            people=len(self._people),
            state="open",
            round_id=str(document["round"]),
            opens=float(document["opens"]),
            closes=float(document["closes"]),
        )
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(self._answer(self.state.round_id))
            # No report is taken from now on; who is still on the way comes too late.
            await asyncio.sleep(max(0.0, self.state.closes - time.time()))
            answering.cancel()

    async def _answer(self, round_id: str) -> None:
        envelope = await self._api.envelope(round_id)
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = _SPREAD * self._duration_s * _GROUP / len(self._people)
        for number, start in enumerate(range(0, len(self._people), _GROUP)):
            await asyncio.sleep(began + number * pause - loop.time())
            result = await run_fleet(
                self._config.pinned,
                self._config.policy,
                self._people[start : start + _GROUP],
                rounds=[envelope],
                connections=8,
            )
            more = sum(map(len, result.acknowledged.values()))
            self.state = replace(self.state, answered=self.state.answered + more)


def commuters(count: int, seed: int = 1) -> list[dict[str, list[dict[str, str | int]]]]:
    """What each of the people holds: one way to work."""
    # Invented people, always the same ones: nothing here is a secret.
    draw = random.Random(seed)  # noqa: S311
    modes = draw.choices(list(_WAYS), [share for share, _, _ in _WAYS.values()], k=count)
    return [
        {EVENT: [{"mode": mode, "minutes": max(2, round(draw.gauss(*_WAYS[mode][1:])))}]}
        for mode in modes
    ]


def registry() -> dict[str, Any]:
    """The schema of the event, as the collector and the page take it."""
    source = files("dandelion.queries").joinpath("examples", "commutes.yaml")
    document: dict[str, Any] = yaml.safe_load(source.read_text("utf-8"))
    return document
