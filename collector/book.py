"""The rounds that this process knows: a copy of the driver's list, followed in the store.

`find` decides what a request about a round may hear. The list in the store is what ingest processes
act upon, as far as the database knows its rounds; the database, which cannot roll back, tells a
round that has ended from one that never was and from one that the store has lost (docs/protocol.md
sections 9 and 10).
"""

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from collector import logs
from collector.database import Database
from collector.store import Layout, RoundStore, StoreUnavailable
from dandelion.descriptor import Descriptor, Envelope
from dandelion.errors import RuleError
from dandelion.round import COMMITTING, Phase

POLL_S: Final = 0.5
# Unknown ids refresh the copy out of turn, but all of them together no more often than this.
REFRESH_S: Final = 0.1
# Rounds that have left the list, kept so that asking for one does not verify signatures each time.
ENDED_MAX: Final = 256


@dataclass(frozen=True)
class Round:
    """A round as an ingest process sees it."""

    envelope: bytes
    phase: Phase
    query: str
    secret: bytes
    partitions: int
    purged: bool = False

    @cached_property
    def descriptor(self) -> Descriptor:
        """The descriptor; its signatures are verified on the way."""
        return Envelope.decode(self.envelope).descriptor

    @cached_property
    def report_bytes(self) -> int:
        """Length of its reports."""
        return self.descriptor.report_bytes

    @cached_property
    def layout(self) -> Layout:
        """Where its reports go in the store."""
        return Layout.of(self.descriptor, self.partitions, self.secret)

    @cached_property
    def envelope_base64(self) -> str:
        """The envelope as JSON carries it."""
        return base64.b64encode(self.envelope).decode()

    def taking(self, now: float) -> bool:
        """Whether reports are taken at `now`, Unix seconds."""
        d = self.descriptor
        return self.phase is Phase.OPEN and d.opens <= now < d.closes

    def encode(self) -> bytes:
        """The record in the store's list."""
        fields = {
            "envelope": self.envelope_base64,
            "phase": self.phase,
            "query": self.query,
            "secret": self.secret.hex(),
            "partitions": self.partitions,
        }
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, record: bytes) -> "Round":
        """The round of a record."""
        fields = json.loads(record)
        return cls(
            base64.b64decode(fields["envelope"]),
            Phase(fields["phase"]),
            fields["query"],
            bytes.fromhex(fields["secret"]),
            fields["partitions"],
        )


class RoundBook:
    """The copy. `retire` is told which rounds may still take commits whenever it changes.

    That is what the database says: a list that the store has lost must not end what would show it.
    """

    def __init__(
        self,
        store: RoundStore,
        database: Database,
        retire: Callable[[Collection[bytes]], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._database = database
        self._retire = retire
        self._rounds: dict[bytes, Round] = {}
        self._by_name: dict[str, Round] = {}
        self._records: dict[bytes, bytes] = {}
        self._ended: dict[bytes, Round] = {}
        self._version: int | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = asyncio.Event()
        self.reachable = False

    def __iter__(self) -> Iterator[Round]:
        return iter(list(self._rounds.values()))

    def listed(self, name: str) -> Round | None:
        """The round of the list whose id is `name`, 32 hexadecimal digits in lower case."""
        return self._by_name.get(name)

    async def run(self) -> None:
        """Follows the list until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Brings the copy up to date; keeps the old one if the store does not answer."""
        try:
            version = await self._store.version()
            if version != self._version:
                records = await self._store.published()
                # After the list: a round is stored before it is listed.
                phases = await self._database.run(_phases)
                self._take(records, phases)
                self._version = version
        except StoreUnavailable as error:
            if self.reachable:
                logs.event("store_unavailable", reason=error.kind)
            self.reachable = False
        except sqlite3.Error as error:
            logs.event("internal", error=error)
        else:
            self.reachable = True

    async def find(self, round_id: bytes) -> Round:
        """The round.

        Raises:
            RuleError: `unknown_round`; `store_unavailable` if it should be in the store's list and
                is not.
        """
        if (known := self._known(round_id)) is not None:
            return known
        await self._refresh_soon()
        if (known := self._known(round_id)) is not None:
            return known
        row = await self._database.run(lambda connection: _row(connection, round_id))
        if row is None:
            raise RuleError("unknown_round")
        ended = Round(
            row["envelope"],
            Phase(row["phase"]),
            row["query"],
            row["secret"],
            row["partitions"],
            True,
        )
        if not row["purged"] and ended.phase is not Phase.DAMAGED:
            raise RuleError("store_unavailable")
        while len(self._ended) >= ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        self._ended[round_id] = ended
        return ended

    def _known(self, round_id: bytes) -> Round | None:
        return self._rounds.get(round_id) or self._ended.get(round_id)

    def _take(self, records: dict[bytes, bytes], phases: dict[bytes, Phase]) -> None:
        kept = {round_id: it for round_id, it in records.items() if round_id in phases}
        self._rounds = {
            round_id: self._round(round_id, record, phases[round_id])
            for round_id, record in kept.items()
        }
        self._by_name = {round_id.hex(): it for round_id, it in self._rounds.items()}
        self._records = kept
        self._retire({round_id for round_id, phase in phases.items() if phase in COMMITTING})

    def _round(self, round_id: bytes, record: bytes, phase: Phase) -> Round:
        """A round of the list. The list may be of an older state of the store; its phase is not."""
        known = self._rounds.get(round_id)
        if known is None or self._records.get(round_id) != record:
            known = Round.decode(record)
        return known if known.phase is phase else replace(known, phase=phase)

    async def _refresh_soon(self) -> None:
        """One refresh that began after this call, shared by all who wait for it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh_later())
        await asyncio.shield(self._refreshing)

    async def _refresh_later(self) -> None:
        await asyncio.sleep(REFRESH_S)
        await self.refresh()


def _phases(connection: sqlite3.Connection) -> dict[bytes, Phase]:
    """Phases of the rounds that the store may hold, by round id."""
    rows = connection.execute("SELECT round, phase FROM rounds WHERE NOT purged")
    return {row["round"]: Phase(row["phase"]) for row in rows}


def _row(connection: sqlite3.Connection, round_id: bytes) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM rounds WHERE round = ?", (round_id,)
    ).fetchone()
    return row
