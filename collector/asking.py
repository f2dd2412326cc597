"""Asking every helper for the mask sum of every sealed set, until all have answered.

docs/protocol.md sections 6 and 11.4. A helper that is down delays a round and loses nothing: the
same ask is repeated until `expires`. Answers are kept as they come, so nothing is asked for twice
that has been answered.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from collector import logs, registry
from collector.database import Database
from collector.helper_client import Helper, HelperRefused, HelperUnavailable
from collector.registry import RoundRow, Seal
from collector.releasing import answer_bytes, make_ask, read_answer
from collector.tasks import end
from dandelion.errors import WireError
from dandelion.messages import Ask

RETRY_MIN_S: Final = 0.5
ASKS_AT_ONCE: Final = 2

Answers = dict[tuple[int, int], tuple[bytes, bytes]]


async def gather(
    database: Database,
    helpers: Sequence[Helper],
    row: RoundRow,
    seals: Sequence[Seal],
    *,
    seed: bytes,
    clock: Callable[[], float],
    retry_max_s: float,
) -> Answers | None:
    """(R, signature) by (shard, party); None if the round expired before all were there."""
    d = row.descriptor
    asks = {seal.shard: await asyncio.to_thread(make_ask, d, seal, seed) for seal in seals}
    by_identity = {helper.identity: helper for helper in helpers}
    tasks = []
    for party, entry in enumerate(d.helpers, start=1):
        helper, turns = by_identity.get(entry.identity), asyncio.Semaphore(ASKS_AT_ONCE)
        for ask in asks.values():
            one = _One(database, helper, row, ask, party, clock, retry_max_s)
            tasks.append(asyncio.create_task(one.obtain(turns)))
    try:
        await asyncio.gather(*tasks)
    finally:
        await end(*tasks)
    found = await database.run(partial(registry.answers, round_id=row.round_id))
    complete = len(found) == len(seals) * d.m
    return found if complete else None


class _One:
    """One ask of one helper."""

    def __init__(
        self,
        database: Database,
        helper: Helper | None,
        row: RoundRow,
        ask: Ask,
        party: int,
        clock: Callable[[], float],
        retry_max_s: float,
    ) -> None:
        self._database = database
        self._helper = helper
        self._row = row
        self._ask = ask
        self._party = party
        self._clock = clock
        self._retry_max_s = retry_max_s

    async def obtain(self, turns: asyncio.Semaphore) -> None:
        """Returns when the answer is stored, or at `expires`."""
        pause, reported = RETRY_MIN_S, ""
        while self._left() > 0:
            answered = partial(registry.answered, round_id=self._row.round_id)
            if (self._ask.shard, self._party) in await self._database.run(answered):
                return
            try:
                async with turns:
                    await self._try()
            except HelperUnavailable as error:
                reason = error.reason
            except HelperRefused as error:
                reason = error.token
            except WireError as error:
                reason = error.token
                logs.event("answer_refused", round_id=self._row.round_id, token=reason)
            else:
                return
            if reason != reported:
                await self._report(reason)
                reported = reason
            await asyncio.sleep(min(pause, max(0.0, self._left())))
            pause = min(2 * pause, self._retry_max_s)

    async def _try(self) -> None:
        d, shard = self._row.descriptor, self._ask.shard
        if self._helper is None:
            # Taken out of the configuration; an operator may put it back before `expires`.
            raise HelperUnavailable("not configured")
        # The bytes of a large set, and their hash, are made where they hold up no report.
        body = await asyncio.to_thread(self._ask.encode)
        wait = await self._helper.ask(d.ctx, shard, body)
        del body
        while True:
            await asyncio.sleep(min(wait, max(0.0, self._left())))
            if self._left() <= 0:
                raise HelperUnavailable("expired")
            found = await self._helper.answer(d.ctx, shard, answer_bytes(d))
            if isinstance(found, bytes):
                break
            wait = max(found, RETRY_MIN_S)
        answer = await asyncio.to_thread(read_answer, d, self._ask, self._party, found)
        keep = partial(
            registry.add_answer,
            round_id=self._row.round_id,
            shard=shard,
            party=self._party,
            r=answer.r,
            signature=answer.signature,
        )
        await self._database.run(keep)

    async def _report(self, reason: str) -> None:
        logs.event("helper_unavailable", round_id=self._row.round_id, reason=reason)
        identity = self._row.descriptor.helpers[self._party - 1].identity
        text = f"helper {identity.hex()[:8]}: {reason}"
        await self._database.run(
            partial(registry.set_reason, round_id=self._row.round_id, reason=text)
        )

    def _left(self) -> float:
        return self._row.descriptor.expires - self._clock()
