"""One ask, one answer (docs/protocol.md sections 6 and 11.4).

An ask is judged in the order of section 6 when it arrives; until all of it has passed nothing is
recorded anywhere, so an invalid ask consumes nothing. Then

    1. it takes its place among the computations in flight, keyed by (ctx, shard): the same ask
       again joins it, another is a `set_conflict`
    2. masks are summed and noise is drawn, in a thread            crash: nothing was consumed
    3. one transaction: answer, set, sum, ledger charge            crash before its end: as 2.
    4. the root is erased if this was the last shard, else its     crash: the next sweep does it;
       name notes this shard                                       the stored answer stands
    5. the answer can be fetched; if the disk failed at 4, that is
       made up for first

A computation that fails leaves its place and consumes nothing. That a second set may then be asked
is safe: nothing of the first has left, because step 5 needs step 3.

Noise depends on (ctx, shard, set) under the root, so doing 2 again gives the same bytes. Its
sampling time is hidden: an answer becomes visible at a whole multiple of `answer_delay_ms` after
the ask was accepted. After a restart stored answers are visible at once; the moment of a restart
does not depend on the sampler.

Leaves out: HTTP (`handlers`), and what expires when (`keeper`).
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from dandelion.descriptor import Descriptor
from dandelion.errors import RuleError, WireError
from dandelion.messages import Answer, Ask
from dandelion.privacy import ledger
from dandelion.schemes import oneshot
from helper import logs
from helper.config import Config
from helper.roots import Roots
from helper.store import Signing, State, StateThread, Store, Stored
from helper.workers import in_thread

Place = tuple[bytes, int]  # ctx and shard
_MS: Final = 1_000


@dataclass
class _InFlight:
    """An ask that holds a place. `judged` tells those that want to join whether it was accepted;
    `visible_at` is set once its answer is durable. Times on the steady clock, in seconds.
    """

    set_digest: bytes
    sum: bytes
    judged: "asyncio.Future[bool]" = field(default_factory=asyncio.Future)
    accepted_at: float = 0.0
    visible_at: float | None = None


class Answers:
    """The state machine of asks, for one helper. Lives on the event loop."""

    def __init__(
        self,
        config: Config,
        seed: bytes,
        store: Store,
        roots: Roots,
        state: StateThread,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._config = config
        self._seed = seed
        self._store = store
        self._roots = roots
        self._state = state
        self._clock = clock
        self._steady = steady
        self._delay = config.answer_delay_ms / _MS
        self._in_flight: dict[Place, _InFlight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._arriving = 0
        self._draining = False
        # One sum uses all cores; two at once would only hold twice the keys in memory for longer.
        self._cores = asyncio.Lock()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds one of the few seats for asks that are read, judged or computed: keys need memory.

        Raises:
            RuleError: `draining`, `overloaded`.
        """
        if self._draining:
            raise RuleError("draining")
        if self._arriving + len(self._tasks) >= self._config.asks_at_once_max:
            raise RuleError("overloaded")
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def ask(self, ctx: bytes, shard: int, body: bytes) -> int:
        """Judges an ask and has it answered. Returns the seconds after which to poll.

        Raises:
            WireError, RuleError: the first rule of section 6 that does not hold.
        """
        for place in list(self._in_flight):
            self._is_visible(place)
        ask = await in_thread(lambda: Ask.decode(body))
        if (ask.ctx, ask.shard) != (ctx, shard):
            raise WireError("bad_request", "path and body name different shards")
        now = self._clock()
        signing = await self._signing(ctx, shard)
        _judge_time(signing.descriptor, now)
        await in_thread(lambda: _judge_set(signing.descriptor, ask))
        place = (ctx, shard)
        while (other := self._in_flight.get(place)) is not None:
            # Not before it is known whether the other holds its place rightly.
            await asyncio.shield(other.judged)
            if self._in_flight.get(place) is not other or self._is_visible(place):
                continue
            if (other.set_digest, other.sum) != (ask.set_digest, ask.sum):
                raise RuleError("set_conflict")
            return self._poll_after(other)
        return await self._take_place(place, signing, ask)

    async def answer(self, ctx: bytes, shard: int) -> bytes | int:
        """The stored answer, or the seconds after which to poll again.

        Raises:
            WireError: `wrong_shard`.
            RuleError: `unknown_round`, `not_asked`, `expired` if its bytes were dropped, or
                `store_unavailable` if the root cannot be told of the answer.
        """
        signing = await self._signing(ctx, shard)
        place = (ctx, shard)
        flight = self._in_flight.get(place)
        if flight is not None and flight.judged.done() and not self._is_visible(place):
            return self._poll_after(flight)
        stored = await self._state.run(self._fetchable, signing, shard)
        if stored is None:
            raise RuleError("not_asked")
        if stored.answer is None:
            raise RuleError("expired")
        return stored.answer

    async def drain(self, within_s: float) -> None:
        """Takes no more asks and waits, at most so many seconds, for those in flight; then they
        are given up, which consumes nothing.
        """
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _signing(self, ctx: bytes, shard: int) -> Signing:
        signing = await self._state.run(self._store.signing, ctx)
        if signing is None:
            raise RuleError("unknown_round")
        if shard >= signing.descriptor.shards:
            raise WireError("wrong_shard", "no such shard")
        return signing

    async def _take_place(self, place: Place, signing: Signing, ask: Ask) -> int:
        """Steps 6 and 7 of section 6, then the computation. No await before the place is held."""
        flight = self._in_flight[place] = _InFlight(ask.set_digest, ask.sum)
        root = None
        try:
            root = await self._state.run(self._claim, signing, ask)
        finally:
            if root is None:
                del self._in_flight[place]
                flight.judged.set_result(False)
        if root is None:
            return 0
        flight.accepted_at = self._steady()
        flight.judged.set_result(True)
        logs.event("ask_accepted", round_id=ask.ctx[:16], shard=ask.shard, n=ask.n)
        task = asyncio.create_task(self._compute(place, flight, signing, ask, root))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return self._poll_after(flight)

    def _claim(self, signing: Signing, ask: Ask) -> bytes | None:
        """On the state thread: the root to answer with, or None if this very ask was answered."""
        stored = self._store.answer(ask.ctx, ask.shard)
        if stored is not None:
            if (stored.set_digest, stored.sum) != (ask.set_digest, ask.sum):
                raise RuleError("set_conflict")
            return None
        root = self._roots.of_round(signing.mask_key, signing.ctx)
        if root is None or root.has_answered(ask.shard):
            raise RuleError("key_gone")
        return self._roots.read(root)

    async def _compute(
        self, place: Place, flight: _InFlight, signing: Signing, ask: Ask, root: bytes
    ) -> None:
        d, party, threads = signing.descriptor, signing.party, self._config.threads
        try:
            async with self._cores:
                r = await in_thread(
                    lambda: oneshot.answer_vector(
                        d, party, root, ask.shard, ask.set_digest, ask.keys, threads=threads
                    )
                )
            answer = Answer.create(ask, party, r, self._seed).encode()
            await self._state.run(self._commit, signing, ask, answer)
            periods = math.ceil((self._steady() - flight.accepted_at) / self._delay)
            flight.visible_at = flight.accepted_at + max(1, periods) * self._delay
        finally:
            if flight.visible_at is None:
                del self._in_flight[place]
        logs.event("answer_stored", round_id=ask.ctx[:16], shard=ask.shard, n=ask.n)

    def _commit(self, signing: Signing, ask: Ask, answer: bytes) -> None:
        """On the state thread: steps 3 and 4 of the module's order."""
        ctx, now = signing.ctx, int(self._clock())
        with self._store.transaction():
            current = self._store.signing(ctx)
            live = current is not None and current.state is State.LIVE
            if not live or now >= signing.descriptor.expires:
                raise RuleError("expired", "while the answer was computed")
            stored = Stored(ask.n, ask.set_digest, ask.sum, answer)
            self._store.add_answer(ctx, ask.shard, stored)
            self._store.append(ledger.CHARGE, signing, ask.shard, now)
            if self._is_complete(signing):
                self._store.set_state(ctx, State.ANSWERED)
        self._tell_root(signing)

    def _fetchable(self, signing: Signing, shard: int) -> Stored | None:
        """On the state thread: what may leave. No answer does before its root knows of it, or a
        database restored later would meet a root that serves another set.
        """
        stored = self._store.answer(signing.ctx, shard)
        if stored is not None:
            self._tell_root(signing)
        return stored

    def _tell_root(self, signing: Signing) -> None:
        """Erases the root of a round that is answered, or notes the shards that are."""
        root = self._roots.of_round(signing.mask_key, signing.ctx)
        if root is None:
            return
        if self._is_complete(signing):
            self._roots.erase(root)
            logs.event("root_erased", round_id=signing.ctx[:16])
        else:
            self._roots.note_answered(root, self._store.answered_shards(signing.ctx))

    def _is_complete(self, signing: Signing) -> bool:
        answered = self._store.answered_shards(signing.ctx)
        return answered == (1 << signing.descriptor.shards) - 1

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logs.event("answer_failed", error=error)

    def _is_visible(self, place: Place) -> bool:
        """Whether the answer may be fetched; forgets the computation then."""
        flight = self._in_flight.get(place)
        if flight is None:
            return True
        if flight.visible_at is None or self._steady() < flight.visible_at:
            return False
        del self._in_flight[place]
        return True

    def _poll_after(self, flight: _InFlight) -> int:
        """Whole seconds to the next multiple of the delay: the same whether or not the answer is
        durable already.
        """
        waited = self._steady() - flight.accepted_at
        return math.ceil((math.floor(waited / self._delay) + 1) * self._delay - waited)


def _judge_time(d: Descriptor, now: float) -> None:
    if now < d.closes:
        raise RuleError("not_closed")
    if now >= d.expires:
        raise RuleError("expired")


def _judge_set(d: Descriptor, ask: Ask) -> None:
    oneshot.check_keys(d, ask.shard, ask.keys)
    ask.verify(d.collector)
