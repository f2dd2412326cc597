"""A deployment to measure: every party a process, rounds of any number of slots, sums held to the
truth.

Exactness under noise: the noise is the product's own, and no switch turns it off. But this test bed
owns the helpers' folders, reads each round's roots while they exist, derives the same noise from
them after the release, and takes it away. What is left must be the true sum, to the last unit.
"""

import asyncio
import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from client_py.config import Policy
from dandelion.cli.http import Api
from dandelion.cli.stack import Settings, Stack
from dandelion.descriptor import Descriptor, Envelope
from dandelion.params import SEED_BYTES
from dandelion.schemes import oneshot
from dandelion.verify import VerifiedRelease, verify_release
from tests.bench.load import Vector

SCOPE: Final = "bench"
ENDED: Final = frozenset({"released", "abandoned", "damaged"})
# The collector's default `seal_grace_s`: how long after `closes` it waits before it seals.
SEAL_GRACE_S: Final = 2.0
_EPSILON: Final = "5"
_RELEASE_TIMEOUT_S: Final = 300.0


class Wrong(Exception):
    """What came out is not what went in, or a round did not end as it should."""


@dataclass(frozen=True)
class Opened:
    """An open round and the helpers' secrets for it, by mask key."""

    id: str
    descriptor: Descriptor
    roots: Mapping[bytes, bytes]


@dataclass(frozen=True)
class Checked:
    """A release that has been verified, and its sums without the helpers' noise."""

    verified: VerifiedRelease
    exact: Vector
    noise: Vector


def settings(
    folder: Path,
    *,
    workers: int = 1,
    redis_url: str | None = None,
    collector: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """Two helpers with budget for any number of rounds, and floors that any round passes."""
    return Settings(
        folder=folder,
        scopes=(SCOPE,),
        cohort_min=2,
        policy=Policy(cohort_min=2, epsilon_round=float(_EPSILON), epsilon_period=1e4),
        redis_url=redis_url,
        workers=workers,
        epsilon_round=float(_EPSILON),
        epsilon_period=1e4,
        collector=collector or {},
    )


class Bed:
    """A started stack, asked for rounds and releases."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.api = Api(stack.deployment)

    @property
    def endpoint(self) -> str:
        """The collector's public address."""
        return self._stack.deployment.public

    @property
    def admin_address(self) -> str:
        """The collector's admin address."""
        return self._stack.deployment.admin or ""

    def add_query(self, name: str, slots: int, cohort_min: int, cohort_max: int) -> None:
        """A question whose vectors have `slots` slots, an even number, and weights up to 500."""
        values = [f"c{number}" for number in range(slots // 2)]
        columns = {
            "who": {"kind": "category", "values": values},
            "load": {"kind": "number", "lo": 0, "hi": 1_000},
        }
        sql = "SELECT who, SUM(load) FROM visit GROUP BY who"
        self._add(name, slots, sql, columns, _EPSILON, cohort_min, cohort_max)

    def add_histogram(self, name: str, slots: int, cohort_max: int) -> None:
        """A question with any number of slots, weights of 1, and words of 32 bits."""
        columns = {"load": {"kind": "number", "lo": 0, "hi": slots}}
        # Nothing but noise of this size makes the words of so small values that wide.
        sql, epsilon = f"SELECT HISTOGRAM(load, {slots}) FROM visit", "0.000005"
        width = self._add(name, slots, sql, columns, epsilon, 2, cohort_max)
        if width != 32:
            raise ValueError(f"words of 32 bits were wanted, {width} came")

    def _add(
        self,
        name: str,
        slots: int,
        sql: str,
        columns: Mapping[str, object],
        epsilon: str,
        cohort_min: int,
        cohort_max: int,
    ) -> int:
        """Adds the question; the width of its words in bits."""
        body = {
            "name": name,
            "sql": sql,
            "registry": {"events": {"visit": {"columns": columns}}},
            "epsilon": epsilon,
            "delta": "0.00000001",
            "scope": SCOPE,
            "cohort_min": cohort_min,
            "cohort_max": cohort_max,
        }
        made = self.api.admin("POST", "/admin/v1/queries", body)
        if made["slots"] != slots:
            raise ValueError(f"{slots} slots were wanted, {made['slots']} came")
        return int(made["width"])

    def open(self, query: str, duration_s: int, answer_s: int | None = None) -> Opened:
        """Opens a round for at least `duration_s`; it expires `answer_s` after it closes."""
        body: dict[str, object] = {"query": query, "duration_s": duration_s}
        if answer_s is not None:
            body["expires"] = int(time.time()) + 1 + duration_s + answer_s
        round_id = str(self.api.admin("POST", "/admin/v1/rounds", body)["round"])
        shown = self.round(round_id)
        descriptor = Envelope.decode(base64.b64decode(shown["envelope"])).descriptor
        wanted = {helper.mask_key for helper in descriptor.helpers}
        found = {key: root for key, root in self._roots() if key in wanted}
        if found.keys() != wanted:
            raise Wrong("a helper keeps no root for a round that is open")
        return Opened(round_id, descriptor, found)

    def round(self, round_id: str) -> dict[str, Any]:
        """The round as the operator sees it."""
        document: dict[str, Any] = self.api.admin("GET", f"/admin/v1/rounds/{round_id}")
        return document

    def until(self, round_id: str, *phases: str, timeout_s: float = _RELEASE_TIMEOUT_S) -> str:
        """Waits for one of the phases and returns it.

        Raises:
            Wrong: the round ended otherwise, a process ended, or it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while (phase := str(self.round(round_id)["phase"])) not in phases:
            if phase in ENDED:
                raise Wrong(f"round {round_id} ended {phase}: {self.round(round_id)['reason']}")
            if failed := self._stack.failed():
                raise Wrong(failed)
            if time.monotonic() > deadline:
                raise Wrong(f"round {round_id} is {phase} after {timeout_s:.0f} s")
            time.sleep(0.1)
        return phase

    def until_answered(self, timeout_s: float = _RELEASE_TIMEOUT_S) -> None:
        """Waits until every helper has stored an answer, by their logs; for one round only."""
        logs = sorted(self._folder.glob("helper-*.log"))
        deadline = time.monotonic() + timeout_s
        while not all('"event":"answer_stored"' in log.read_text() for log in logs):
            if time.monotonic() > deadline:
                raise Wrong(f"a helper has not answered after {timeout_s:.0f} s")
            time.sleep(0.1)

    def release(self, round_id: str) -> bytes:
        """The artefact."""
        return asyncio.run(self.api.release(round_id))

    def check(self, opened: Opened, release: bytes) -> Checked:
        """Verifies a release as a stranger would, then removes the noise that the roots tell."""
        pinned = self._stack.client_config.pinned
        verified = verify_release(release, collector=pinned.collector, helpers=pinned.helpers)
        d = verified.release.descriptor
        noise = np.zeros(d.slots, dtype=np.int64)
        for shard in verified.release.shards:
            for root in opened.roots.values():
                noise += oneshot.noise(d, root, shard.shard, shard.set_digest)
        # The released vector is Y minus the answers, and an answer is masks minus noise.
        return Checked(verified, verified.sums - noise, noise)

    def _roots(self) -> list[tuple[bytes, bytes]]:
        found = []
        for path in self._folder.glob("helper-*/roots/*"):
            try:
                root = path.read_bytes()
            except FileNotFoundError:
                continue  # renamed or erased meanwhile: not that of a round just opened
            if len(root) == SEED_BYTES and any(root):
                found.append((oneshot.round_keys(root)[1], root))
        return found


def require_exact(checked: Checked, truth: Vector, taken: int) -> None:
    """The sum is that of the acknowledged reports, each exactly once.

    Raises:
        Wrong: it is not.
    """
    if checked.verified.n != taken:
        raise Wrong(f"{checked.verified.n:,} reports were summed, {taken:,} acknowledged")
    wrong = np.flatnonzero(checked.exact != truth)
    if wrong.size:
        slot = int(wrong[0])
        raise Wrong(
            f"{wrong.size} of {truth.size} slots differ from the truth; slot {slot} holds"
            f" {int(checked.exact[slot])} instead of {int(truth[slot])}"
        )
