"""What must hold, whatever happened: invariants I1 to I8 of a round, read from the outside.

`submitted`, `acknowledged` and `included` are sets of slots: every report sets its own slot and
nothing else, so a release tells who was counted, and how often.

    I1  acknowledged is part of included     I5  one set, at the collector and at every helper
    I2  included is part of submitted        I6  nothing changes after the seal
    I3  every key counts once                I7  one released value; charged at least released
    I4  all counts agree                     I8  every client has an answer, every round an end
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from client_py.receipts import Outcome
from collector.database import FILE
from dandelion.descriptor import Descriptor, Envelope
from dandelion.errors import DandelionError
from dandelion.messages import Answer
from dandelion.params import KEY_BYTES
from dandelion.privacy.ledger import CHARGE, RELEASE, Entry, verify_chain
from dandelion.queries.plan import Plan
from dandelion.round import Phase
from dandelion.verify import VerifiedRelease, verify_release
from helper.app import DATABASE
from tests.oracle_membership import Vector
from tests.sim.parties import Device
from tests.sim.template import HELPERS, rows_of

_KEY = slice(17, 17 + KEY_BYTES)


class Checks:
    """The state of a deployment that is at rest, held against what its clients know."""

    def __init__(
        self,
        folder: Path,
        devices: list[Device],
        *,
        forgot: bool,
        unkept: set[bytes],
        seals: Mapping[tuple[bytes, int], tuple[object, ...]],
        clocks: bool,
    ) -> None:
        """`forgot`: the store has lost something. `unkept`: rounds that may have lost the last
        second of a process with it. `seals`: (shard, n, set, sum) by round and shard, as they were
        first seen. `clocks`: some were wrong.
        """
        self._folder = folder
        self._devices = devices
        self._forgot = forgot
        self._forgot = forgot
        self._unkept = unkept if forgot else set()
        self._seals = seals
        self._clocks = clocks
        self.violations: list[str] = []
        self.phases: list[str] = []
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        """Checks every round there is."""
        with closing(self._open("collector", FILE)) as database:
            rows = database.execute("SELECT * FROM rounds").fetchall()
            for row in rows:
                self._round(database, row)
            self._ledger(database, rows)
            self.seen["two_rounds"] += len(rows) > 1
        for name in HELPERS:
            with closing(self._open(name, DATABASE)) as helper:
                self._chain(name, helper)

    def _say(self, invariant: str, text: str) -> None:
        self.violations.append(f"{invariant}: {text}")

    def _open(self, party: str, file: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._folder / party / file)
        connection.row_factory = sqlite3.Row
        return connection

    def _round(self, database: sqlite3.Connection, row: sqlite3.Row) -> None:
        d = Envelope.decode(row["envelope"]).descriptor
        phase = Phase(row["phase"])
        self.phases.append(phase)
        release = database.execute(
            "SELECT artefact FROM releases WHERE round = ?", (d.round_id,)
        ).fetchone()
        if phase is Phase.RELEASED and release is None:
            self._say("I7", "released without a release")
        if phase is not Phase.RELEASED and release is not None:
            self._say("I7", f"a release of a round that is {phase}")
        seal = "behind" in row["reason"] or "disagree" in row["reason"]
        self.seen["damage_at_seal"] += phase is Phase.DAMAGED and seal
        if phase is Phase.DAMAGED and not self._forgot:
            self._say("I1", f"damaged, and the store forgot nothing: {row['reason']}")
        if release is not None:
            self._released(d, bytes(release["artefact"]))
        elif phase is Phase.ABANDONED:
            self._abandoned(d, row["reason"])

    def _abandoned(self, d: Descriptor, reason: str) -> None:
        if "cohort_min" in reason:
            for shard in range(d.shards):
                acked = {key for key in self._acked(d) if d.shard_of(key) == shard}
                if len(acked) >= d.cohort_min and d.round_id in self._unkept:
                    self.seen["lost_unanchored"] += 1
                elif len(acked) >= d.cohort_min:
                    self._say("I1", f"{len(acked)} acknowledged, and abandoned: {reason}")
        elif not self._clocks:
            self._say("I8", f"abandoned although everything works again: {reason}")

    def _acked(self, d: Descriptor) -> set[bytes]:
        return {
            self._key(device, d)
            for device in self._devices
            if (verdict := device.verdict(d.round_id)) is not None and verdict.outcome.delivered
        }

    @staticmethod
    def _key(device: Device, d: Descriptor) -> bytes:
        return device.store.made[d.round_id].body[_KEY]

    def _released(self, d: Descriptor, artefact: bytes) -> None:
        try:
            verified = verify_release(artefact)
        except DandelionError as error:
            self._say("I7", f"the release does not verify: {error}")
            return
        shards = {it.shard: it for it in verified.release.shards}
        self.seen["two_shards"] += len(shards) > 1
        for shard in shards.values():
            sealed = (shard.shard, shard.n, shard.set_digest, shard.y)
            if self._seals.get((d.round_id, shard.shard), sealed) != sealed:
                self._say("I6", "what was released is not what was sealed")
        times, strange = self._members(d, verified)
        if strange:
            self._say("I3", f"values that no set of reports adds up to, at slots {strange}")
        total = 0
        groups: dict[bytes, list[Device]] = defaultdict(list)
        for device in self._devices:
            if d.round_id in device.store.made:
                groups[self._key(device, d)].append(device)
        for key, devices in groups.items():
            slots = {device.slot for device in devices}
            count = sum(times.get(slot, 0) for slot in slots)
            total += count
            if count > 1:
                self._say("I3", f"{[it.name for it in devices]} counted {count} times")
            whole = d.shard_of(key) in shards
            self._answers(d, devices, times, sealed=whole, twin_counted=count == 1)
        known = {device.slot for devices in groups.values() for device in devices}
        if extra := sorted(set(times) - known):
            self._say("I2", f"counted and never submitted: slots {extra}")
        if not total == verified.n == sum(times.values()):
            self._say("I4", f"{verified.n} reports, and the sum holds {total}")
        self._helpers(d, shards)

    def _answers(
        self,
        d: Descriptor,
        devices: list[Device],
        times: Mapping[int, int],
        *,
        sealed: bool,
        twin_counted: bool,
    ) -> None:
        """What each device heard, held against what was counted."""
        for device in devices:
            verdict = device.verdict(d.round_id)
            if verdict is None:
                continue
            counted = times.get(device.slot, 0)
            if verdict.outcome.delivered and not counted and sealed:
                if d.round_id in self._unkept:
                    self.seen["lost_unanchored"] += 1
                    continue
                if self._forgot and verdict.outcome is Outcome.DUPLICATE and twin_counted:
                    # The list of a seal has keys only: which of two bodies under one key is in was
                    # known to the store alone, and that was restored from an older copy.
                    self.seen["twin_after_restore"] += 1
                    continue
                self._say("I1", f"{device.name} was told {verdict.outcome}, and is not counted")
            if verdict.token == "round_closed" and counted and not self._clocks:
                self._say("I1", f"{device.name} is counted, and was told round_closed")
            if verdict.token == "report_conflict" and not device.liar:
                self._say("I3", f"{device.name} was told of a conflict that it has not made")
            if verdict.token == "report_conflict" and counted:
                self._say("I3", f"{device.name} was told of a conflict, and is counted")
            if verdict.token == "round_damaged":
                self._say("I1", f"{device.name} was told round_damaged, and it was released")

    def _members(
        self, d: Descriptor, verified: VerifiedRelease
    ) -> tuple[dict[int, int], list[int]]:
        """How often each device's slot is in the sum; and places where something else is."""
        left = verified.sums.copy()
        times: dict[int, int] = {}
        for slot, vector in enumerate(vectors(d.plan)):
            at = int(np.argmax(np.abs(vector)))
            count = round(int(verified.sums[at]) / int(vector[at]))
            if count:
                times[slot] = count
                left -= count * vector
        bound = 12 * (d.m * len(verified.release.shards) * d.noise_var) ** 0.5 + 1
        return times, [int(at) for at in np.flatnonzero(np.abs(left) > bound)]

    def _helpers(self, d: Descriptor, shards: Mapping[int, Any]) -> None:
        """Each helper answered once for each shard, for the set that was released."""
        for name in HELPERS:
            with closing(self._open(name, DATABASE)) as database:
                for shard in shards.values():
                    rows = database.execute(
                        "SELECT * FROM answers WHERE ctx = ? AND shard = ?", (d.ctx, shard.shard)
                    ).fetchall()
                    if len(rows) != 1:
                        self._say("I7", f"{name} has {len(rows)} answers for a shard")
                        continue
                    [row] = rows
                    if (row["n"], row["set_digest"]) != (shard.n, shard.set_digest):
                        self._say("I5", f"{name} answered for another set")
                    if row["answer"] is not None:
                        answer = Answer.decode(row["answer"], d.payload_bytes)
                        if (answer.r, answer.signature) not in shard.answers:
                            self._say("I7", f"{name} answered something else than was released")
                    charged = database.execute(
                        "SELECT count(*) FROM ledger WHERE kind = ? AND ctx = ? AND shard = ?",
                        (CHARGE, d.ctx, shard.shard),
                    ).fetchone()[0]
                    if charged != 1:
                        self._say("I7", f"{name} charged {charged} times for a released shard")

    def _ledger(self, database: sqlite3.Connection, rows: list[sqlite3.Row]) -> None:
        self._chain("collector", database)
        entries = list(_entries(database))
        charged = {(entry.ctx, entry.shard) for entry in entries if entry.kind == CHARGE}
        released = {(entry.ctx, entry.shard) for entry in entries if entry.kind == RELEASE}
        if released - charged:
            self._say("I7", "released without having been charged")
        if len(rows) and len(entries) != len(charged) + len(released):
            self._say("I7", "an entry of the ledger twice")

    def _chain(self, name: str, database: sqlite3.Connection) -> None:
        try:
            verify_chain(list(_entries(database)))
        except DandelionError as error:
            self._say("I7", f"the ledger of {name}: {error}")


@lru_cache
def vectors(plan: bytes) -> list[Vector]:
    """The vector of each slot's client."""
    parsed = Plan.parse(plan)
    return [parsed.execute(rows_of(slot)["visit"], lambda n, k: range(k)) for slot in range(64)]


def _entries(database: sqlite3.Connection) -> Iterator[Entry]:
    for row in database.execute(
        "SELECT seq, kind, ctx, shard, scope, rho_units, at, note, prev, hash FROM ledger"
        " ORDER BY seq"
    ):
        values = dict(row)
        yield Entry(**(values | {"rho_units": int(values["rho_units"])}))
