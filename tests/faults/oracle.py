"""What must hold after a run, whatever was done to the processes: eight invariants.

Everything here is compared from the outside: what clients were told, what went over the wire to
and from helpers, the artefact as any reader gets it, and the databases once everything has stopped.
"""

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from collector import database, ledger, registry
from dandelion.errors import DandelionError
from dandelion.messages import Ask, Release, set_digest
from dandelion.privacy.ledger import CHARGE, RELEASE, Entry, verify_chain
from dandelion.round import FINAL, TRANSITIONS, Phase
from dandelion.verify import verify_release
from helper.app import DATABASE as HELPER_DATABASE
from tests.faults.clients import Crowd
from tests.faults.deployment import COHORT_MIN, HELPERS, Deployment
from tests.oracle_membership import counted

INVARIANTS: Final = {
    "I1": "acknowledged reports are included",
    "I2": "included reports were submitted",
    "I3": "every included report counts exactly once",
    "I4": "all counts agree: release, sum, helpers",
    "I5": "the set of keys is the set that was summed, everywhere the same",
    "I6": "nothing changes after the seal",
    "I7": "one release per round, one answer per helper, charged before released",
    "I8": "every client hears a final answer and every round ends as it should",
}


@dataclass
class RoundRecord:
    """What was seen of a round while it ran.

    Attributes:
        crowd: its clients; None if its opening was never confirmed, so that nobody took part.
        phases: in the order in which they were seen.
        artefacts: every artefact that anybody was given.
        late: what a client heard long after the end that contradicts what it had heard.
    """

    round_id: str
    crowd: Crowd | None = None
    phases: list[Phase] = field(default_factory=list)
    reason: str = ""
    artefacts: set[bytes] = field(default_factory=set)
    late: list[str] = field(default_factory=list)

    def saw(self, phase: Phase) -> None:
        """Notes the present phase."""
        if not self.phases or self.phases[-1] is not phase:
            self.phases.append(phase)

    @property
    def ended(self) -> bool:
        """Whether its phase is final."""
        return bool(self.phases) and self.phases[-1] in FINAL


@dataclass(frozen=True)
class Verdicts:
    """What does not hold, by invariant, and numbers of what was compared."""

    faults: dict[str, list[str]]
    numbers: Counter[str]

    @property
    def hold(self) -> bool:
        """Whether all invariants hold."""
        return not any(self.faults.values())

    def lines(self) -> list[str]:
        """One line per invariant, each followed by its first faults."""
        found = []
        for name, sentence in INVARIANTS.items():
            faults = self.faults.get(name, [])
            found.append(f"{name} {'FAILED' if faults else 'holds '} {sentence}")
            found += [f"     {fault}" for fault in faults[:8]]
        return found


def judge(
    it: Deployment, records: Iterable[RoundRecord], allowed: Iterable[Phase] = ()
) -> Verdicts:
    """The verdicts on a deployment that has stopped.

    Args:
        it: the deployment; its databases are read.
        records: its rounds.
        allowed: final phases that a round may also end in, beside the one that its reports call
            for: `released`, or `abandoned` if too few clients were told yes.
    """
    found: dict[str, list[str]] = defaultdict(list)
    numbers: Counter[str] = Counter()
    books = _Books(it)
    for record in records:
        stored = books.phases.get(bytes.fromhex(record.round_id))
        if record.ended and stored is not record.phases[-1]:
            found["I6"].append(f"round {record.round_id[:8]} is stored as {stored}")
        numbers[record.phases[-1] if record.phases else "unseen"] += 1
        _judge_ending(record, frozenset(allowed), found)
        _judge_history(record, found)
        if record.crowd is not None:
            _judge_round(record, record.crowd, books, found, numbers)
    _judge_wire(it, found)
    books.judge(found)
    return Verdicts(dict(found), numbers)


def _judge_ending(
    record: RoundRecord, allowed: frozenset[Phase], found: dict[str, list[str]]
) -> None:
    name = record.round_id[:8]
    if not record.ended:
        found["I8"].append(f"round {name} stays {record.phases[-1:]}: {record.reason}")
        return
    most = max(acked_by_shard(record.crowd).values(), default=0) if record.crowd else 0
    # Reports whose client never heard that they count may make up a cohort all the same.
    wanted = {Phase.RELEASED} if most >= COHORT_MIN else {Phase.RELEASED, Phase.ABANDONED}
    if record.phases[-1] not in wanted | allowed:
        found["I8"].append(f"round {name} ended {record.phases[-1]}: {record.reason}")
    # A store that was restored may have forgotten who is in a round that is over; its clients are
    # not told "no" then, and give up when the round expires.
    if record.crowd is not None and Phase.DAMAGED not in allowed:
        _compare(found["I8"], name, "wait for ever", record.crowd.waiting)


def _judge_history(record: RoundRecord, found: dict[str, list[str]]) -> None:
    """Phases follow each other as section 9 allows; some may have passed unseen."""
    name = record.round_id[:8]
    for before, after in zip(record.phases, record.phases[1:], strict=False):
        if after not in _reachable(before):
            found["I6"].append(f"round {name} went from {before} to {after}")
    if len(record.artefacts) > 1:
        found["I7"].append(f"round {name} has {len(record.artefacts)} artefacts")
    if record.artefacts and record.phases[-1:] != [Phase.RELEASED]:
        found["I7"].append(f"round {name} is {record.phases[-1]} and has an artefact")
    found["I6"] += [f"round {name}: {text}" for text in record.late]


def _judge_round(
    record: RoundRecord,
    crowd: Crowd,
    books: "_Books",
    found: dict[str, list[str]],
    numbers: Counter[str],
) -> None:
    name, d = record.round_id[:8], crowd.d
    numbers["submitted"] += len(crowd.numbers(lambda member: member.submitted))
    numbers["acknowledged"] += len(crowd.acked)
    if record.phases[-1:] != [Phase.RELEASED]:
        return
    if not record.artefacts:
        found["I7"].append(f"round {name} is released, but nobody could read it")
        return
    try:
        verified = verify_release(min(record.artefacts))
    except DandelionError as error:
        found["I7"].append(f"round {name}: the artefact does not verify: {error}")
        return
    times = counted(verified.sums, d.linf)
    included = set(times)
    numbers["included"] += len(included)
    submitted = crowd.numbers(lambda member: member.submitted)
    refused = crowd.numbers(lambda member: bool(member.refusal))
    shards = {shard.shard for shard in verified.release.shards}
    small = {shard for shard, n in acked_by_shard(crowd).items() if n < COHORT_MIN} - shards
    alone = crowd.numbers(lambda member: d.shard_of(member.epk) in small)
    _compare(found["I1"], name, "acknowledged and lost", crowd.acked - alone - included)
    _compare(found["I2"], name, "included and never sent", included - submitted)
    _compare(found["I3"], name, "not exactly once", {it for it, n in times.items() if n != 1})
    _compare(found["I6"], name, "refused and included", refused & included)
    if crowd.attempts == 1:
        silent = crowd.numbers(lambda member: not member.done)
        _compare(found["I8"], name, "included and never told", silent & included)
    if verified.n != len(included):
        found["I4"].append(f"round {name}: n = {verified.n}, in the sum are {len(included)}")
    epks = {member.number: member.epk for member in crowd.members}
    for shard in verified.release.shards:
        keys = sorted(
            epk
            for number, epk in epks.items()
            if number in included and d.shard_of(epk) == shard.shard
        )
        if set_digest(d.ctx, shard.shard, b"".join(keys)) != shard.set_digest:
            found["I5"].append(f"round {name}: the keys are not of those in the sum")
        books.compare(d.ctx, shard.shard, shard.n, shard.set_digest, found)
    books.compare_release(record, found)


class _Books:
    """The databases of collector and helpers."""

    def __init__(self, it: Deployment) -> None:
        with closing(database.connect(it.state("collector") / database.FILE)) as connection:
            self.collector = ledger.entries(connection)
            self.releases = {
                row["round"]: row["artefact"]
                for row in connection.execute("SELECT round, artefact FROM releases")
            }
            self.phases = {
                row.round_id: row.phase for row in registry.round_rows(connection, limit=-1)
            }
        self.helpers: dict[str, list[Entry]] = {}
        self.answers: dict[str, dict[tuple[bytes, int], tuple[int, bytes]]] = {}
        for name in HELPERS:
            with closing(sqlite3.connect(it.state(name) / HELPER_DATABASE)) as connection:
                self.helpers[name] = [
                    Entry(*row)
                    for row in connection.execute(
                        "SELECT seq, kind, ctx, shard, scope, rho_units, at, note, prev, hash"
                        " FROM ledger ORDER BY seq"
                    )
                ]
                self.answers[name] = {
                    (ctx, shard): (n, digest)
                    for ctx, shard, n, digest in connection.execute(
                        "SELECT ctx, shard, n, set_digest FROM answers"
                    )
                }

    def compare(
        self, ctx: bytes, shard: int, n: int, digest: bytes, found: dict[str, list[str]]
    ) -> None:
        """Holds a released shard against what the helpers remember."""
        for name, answers in self.answers.items():
            count, kept = answers.get((ctx, shard), (None, None))
            if count != n:
                found["I4"].append(f"{name} answered for {count} reports, released are {n}")
            if kept != digest:
                found["I5"].append(f"{name} answered another set than the released one")

    def compare_release(self, record: RoundRecord, found: dict[str, list[str]]) -> None:
        """What was read is what is stored."""
        stored = self.releases.get(bytes.fromhex(record.round_id))
        if record.artefacts != {stored}:
            found["I7"].append(f"round {record.round_id[:8]}: another artefact is stored")

    def judge(self, found: dict[str, list[str]]) -> None:
        """Holds the ledgers against each other and against the releases."""
        for name, entries in {"collector": self.collector, **self.helpers}.items():
            try:
                verify_chain(entries)
            except DandelionError as error:
                found["I7"].append(f"the ledger of the {name}: {error.detail}")
            twice = {key: n for key, n in _keys(entries, CHARGE).items() if n != 1}
            if twice:
                found["I7"].append(f"the ledger of the {name} charges {len(twice)} sets twice")
        hashes = {hashlib.sha256(it).hexdigest() for it in self.releases.values()}
        released = _keys(self.collector, RELEASE)
        for entry in self.collector:
            if entry.kind == RELEASE and entry.note not in hashes:
                found["I7"].append("the ledger names an artefact that is not stored")
        for name, entries in {"collector": self.collector, **self.helpers}.items():
            unpaid = set(released) - set(_keys(entries, CHARGE))
            if unpaid:
                found["I7"].append(f"{len(unpaid)} released sets were not charged by the {name}")
        in_release = {
            (release.descriptor.ctx, shard.shard)
            for release in map(Release.decode, self.releases.values())
            for shard in release.shards
        }
        if in_release != set(released):
            found["I7"].append("the ledger's releases are not those that are stored")


def _judge_wire(it: Deployment, found: dict[str, list[str]]) -> None:
    """No helper is asked for two sets of a shard, and none gives two answers."""
    asks: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    answers: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    for exchange in it.exchanges:
        place = (exchange.helper, exchange.path.rpartition("/")[0])
        if exchange.path.endswith("/ask"):
            ask = Ask.decode(exchange.body)
            asks[place].add(ask.set_digest + ask.sum)
        elif exchange.path.endswith("/answer") and exchange.status == 200:
            answers[place].add(exchange.reply)
    for (helper, path), different in asks.items():
        if len(different) > 1:
            found["I6"].append(f"{helper} was asked for {len(different)} sets of {path[:24]}")
    for (helper, path), bodies in answers.items():
        if len(bodies) > 1:
            found["I7"].append(f"{helper} gave {len(bodies)} answers for {path[:24]}")


def _compare(found: list[str], name: str, what: str, clients: set[int]) -> None:
    if clients:
        shown = ", ".join(str(number) for number in sorted(clients)[:8])
        found.append(f"round {name}: {len(clients)} clients {what}: {shown}")


def _keys(entries: Iterable[Entry], kind: str) -> Counter[tuple[bytes, int]]:
    return Counter((entry.ctx, entry.shard) for entry in entries if entry.kind == kind)


def _reachable(phase: Phase) -> set[Phase]:
    found: set[Phase] = set()
    todo = [phase]
    while todo:
        for after in TRANSITIONS[todo.pop()] - found:
            found.add(after)
            todo.append(after)
    return found


def acked_by_shard(crowd: Crowd) -> Counter[int]:
    """How many clients of each shard were told yes."""
    return Counter(crowd.d.shard_of(member.epk) for member in crowd.members if member.acked)


def phases_of(shown: Any) -> dict[str, tuple[Phase, str]]:
    """Phase and reason by round id, of the admin interface's list."""
    return {row["round"]: (Phase(row["phase"]), row["reason"]) for row in shown["rounds"]}
