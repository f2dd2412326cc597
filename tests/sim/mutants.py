"""The product, broken on purpose: what a simulation is worth is which of these it notices.

A mutant is a context manager that patches the product within a process that is thrown away;
nothing here is imported by the product, so production cannot reach any of it. They are five of the
way into the store, the alarms of a lossy store, and seven of sealing, asking and releasing.

Two of them honest parties cannot bring out: they take a collector that asks for too small a set,
or a round of which a part was answered before it expired. `direct` says what attacks those.

Leaves out: mutants of the library (its vectors judge it) and of what HTTP refuses.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pytest

from collector import asking, redis_store, registry, rounds, sealing
from collector.committer import LaneCommitter, Outcome, _Item
from collector.database import Database
from collector.redis_store import RedisStore, _Script, _seen
from collector.store import (
    CommitResult,
    Entry,
    Epoch,
    Lane,
    Layout,
    RoundStore,
    StoreUnavailable,
)
from dandelion.descriptor import Descriptor
from dandelion.messages import Answer, Ask
from dandelion.round import Phase
from dandelion.schemes import oneshot
from helper.answers import Answers
from helper.keeper import Keeper
from helper.store import Signing, State
from tests.sim.points import PROFILE as POINTS
from tests.sim.points import Point, plant
from tests.sim.profile import Profile, Trouble
from tests.sim.scenario import Prepare
from tests.sim.world import World

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A broken product.

    `sharp` is a scenario that brings it out, with what `prepare` plants in it; `direct` says what
    does where no simulation can.
    """

    name: str
    what: str
    patch: Callable[[Patch], None]
    sharp: Profile | None = None
    prepare: Prepare | None = None
    direct: str = ""

    def __call__(self) -> AbstractContextManager[None]:
        """The context in which the product is broken."""
        return self._broken()

    @contextmanager
    def _broken(self) -> Iterator[None]:
        with Patch.context() as patch:
            self.patch(patch)
            yield


# The way into the store


def ack_before_commit(patch: Patch) -> None:
    real = LaneCommitter._commit

    async def commit(self: LaneCommitter, items: list[_Item]) -> None:
        for item in items:
            self._settle(item, Outcome.ACCEPTED)
        await real(self, items)

    patch.setattr(LaneCommitter, "_commit", commit)


def no_duplicate_check(patch: Patch) -> None:
    _edit(patch, "_COMMIT", ("if #taken > 1 then", "if false then"))


def two_commands(patch: Patch) -> None:
    """Keys and count in one command, sum and sequence number in another."""
    text = redis_store._COMMIT.text
    checks, writes = text.split("for i = 1, n do\n  redis.call('HSET', buckets")
    sums = [line for line in writes.splitlines() if "KEYS[3]" in line or "KEYS[2]" in line]
    assert len(sums) == 2
    keys = writes.replace(sums[0], "").replace(sums[1], "")
    first = _Script.of(f"{checks}for i = 1, n do\n  redis.call('HSET', buckets{keys}")
    second = _Script.of(
        "local meta = redis.call('HMGET', KEYS[2], 'who', 'seq', 'n')\n"
        "local n = #ARGV[4] / 32\n" + "\n".join(sums) + "\nreturn {'OK'}"
    )
    real = RedisStore._run

    async def run(self: RedisStore, script: _Script, names: list[bytes], *args: bytes) -> Any:
        if script is not redis_store._COMMIT:
            return await real(self, script, names, *args)
        reply = await real(self, first, names, *args)
        return await real(self, second, names, *args) if reply[0] == b"OK" else reply

    patch.setattr(RedisStore, "_run", run)


def fresh_seq(patch: Patch) -> None:
    """After an unknown outcome the next number that the store would take, instead of the same."""

    async def known(
        self: LaneCommitter, epoch: Epoch, items: list[_Item], total: bytes
    ) -> CommitResult:
        entries = [item.entry for item in items]
        while True:
            try:
                return await self._store.commit(self._lane, epoch, self._seq + 1, entries, total)
            except StoreUnavailable:
                await asyncio.sleep(0.02)
                metas = await self._until_known(partial(self._store.metas, self._lane))
                [self._seq] = [meta.seq for meta in metas if meta.epoch == epoch]

    patch.setattr(LaneCommitter, "_known", known)


def no_join(patch: Patch) -> None:
    """Copies that meet in a process are two reports; nor does the store look within a batch."""

    def offer(self: LaneCommitter, entry: Entry, body: bytes, tell: Any) -> bool:
        if self._closing or self._final is not None:
            return False
        item = _Item(entry, body, tell)
        self._pending[entry.epk] = item
        self._queue.append(item)
        self._queued_bytes += len(body)
        if not self._busy:
            self._gather()
        return True

    async def submit(self: LaneCommitter, entry: Entry, body: bytes, hold: Any = None) -> Outcome:
        if self._final is not None:
            return self._final
        if not self.offer(entry, body, lambda _: None):
            return Outcome.UNAVAILABLE
        future = self._pending[entry.epk].future()
        if hold is not None:
            hold(future)
        return await asyncio.shield(future)

    def settle(self: LaneCommitter, item: _Item, outcome: Outcome) -> None:
        self._pending.pop(item.entry.epk, None)
        item.settle(outcome)

    patch.setattr(LaneCommitter, "offer", offer)
    patch.setattr(LaneCommitter, "submit", submit)
    patch.setattr(LaneCommitter, "_settle", settle)
    _edit(patch, "_COMMIT", ("fresh[id] or redis.call", "redis.call"))


def no_loss_alarm(patch: Patch) -> None:
    """Gaps in the numbers, anchors, unequal counts: nothing tells of what has been forgotten."""
    _edit(patch, "_COMMIT", ("seq ~= known + 1", "false"))

    async def read(
        store: RoundStore, layout: Layout, lanes: Sequence[Lane], _: object
    ) -> tuple[bytes, list[bytes]]:
        keys = [key for lane in lanes for key in await store.keys(layout, lane)]
        return b"".join(keys), [total for lane in lanes for total in await store.sums(lane)]

    patch.setattr(sealing, "_read", read)


# Sealing, asking, releasing


def unfenced_seal(patch: Patch) -> None:
    _edit(patch, "_COMMIT", ("if lane[1] ~= 'open' and lane[1] ~= 'closing' then", "if false then"))


def answer_before_durable(patch: Patch) -> None:
    """A helper hands out what it has computed, and writes it down some time later."""
    # By process and place: both helpers live in one interpreter here.
    early: dict[tuple[Answers, bytes, int], bytes] = {}
    real_answer = Answers.answer

    async def compute(
        self: Answers,
        place: tuple[bytes, int],
        flight: Any,
        signing: Signing,
        ask: Ask,
        root: bytes,
    ) -> None:
        d, party = signing.descriptor, signing.party
        r = oneshot.answer_vector(d, party, root, ask.shard, ask.set_digest, ask.keys, threads=1)
        answer = early[self, *place] = Answer.create(ask, party, r, self._seed).encode()
        try:
            await asyncio.sleep(2.0)
            await self._state.run(self._commit, signing, ask, answer)
        finally:
            del self._in_flight[place]

    async def answer(self: Answers, ctx: bytes, shard: int) -> bytes | int:
        if (self, ctx, shard) in early and (ctx, shard) in self._in_flight:
            return early[self, ctx, shard]
        return await real_answer(self, ctx, shard)

    patch.setattr(Answers, "_compute", compute)
    patch.setattr(Answers, "answer", answer)


def cohort_of_the_collector(patch: Patch) -> None:
    """A helper leaves the least number of reports to the collector."""
    real = oneshot.check_keys

    def check_keys(descriptor: Descriptor, shard: int, keys: bytes) -> None:
        real(replace(descriptor, cohort_min=1), shard, keys)

    patch.setattr(oneshot, "check_keys", check_keys)


def one_helper_is_enough(patch: Patch) -> None:
    """One answer for each set is enough; in the place of others zeros are taken."""
    real = asking.gather

    async def gather(database: Database, helpers: Any, row: Any, seals: Any, **options: Any) -> Any:
        d = row.descriptor
        waiting = asyncio.create_task(real(database, helpers, row, seals, **options))
        while not waiting.done():
            found = await database.run(partial(registry.answers, round_id=row.round_id))
            if {shard for shard, _ in found} >= {seal.shard for seal in seals}:
                waiting.cancel()
                nothing = (bytes(d.payload_bytes), bytes(64))
                places = [(it.shard, party) for it in seals for party in range(1, d.m + 1)]
                return {place: found.get(place, nothing) for place in places}
            await asyncio.sleep(0.2)
        return waiting.result()

    patch.setattr(rounds, "gather", gather)


def released_before_stored(patch: Patch) -> None:
    """The round is released in one transaction, and its release is stored in the next."""
    real = Database.run

    async def run(self: Database, act: Any) -> Any:
        if not (isinstance(act, partial) and act.func is registry.add_release):
            return await real(self, act)
        row, now = act.keywords["row"], act.keywords["now"]
        await real(self, lambda it: registry.move(it, row.round_id, Phase.RELEASED, now))
        return await real(self, act)

    patch.setattr(Database, "run", run)
    patch.setattr(registry, "advance", lambda *_: None)


def refund_on_abandon(patch: Patch) -> None:
    def expire(self: Keeper, signing: Signing, _: object) -> None:
        with self._store.transaction():
            self._store.set_state(signing.ctx, State.FREEING)

    patch.setattr(Keeper, "_expire", expire)


def keys_purged_early(patch: Patch) -> None:
    """The store forgets the keys, not the sums, while the last commits are still on their way."""
    real = rounds._Runner._publish

    async def publish(self: rounds._Runner) -> None:
        await real(self)
        layout = self._row.round.layout
        if self._row.phase is Phase.CLOSING:
            store: Any = self._services.store
            pipeline = store._client.pipeline(transaction=False)
            for lane in layout.lanes:
                for bucket in range(layout.buckets):
                    pipeline.unlink(_seen(lane, bucket))
            await pipeline.execute()

    patch.setattr(rounds._Runner, "_publish", publish)


def _edit(patch: Patch, script: str, *changes: tuple[str, str]) -> None:
    """Changes the text of a script; that it is there to be changed is part of the mutant."""
    text = getattr(redis_store, script).text
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    patch.setattr(redis_store, script, _Script.of(text))


# Where each is at home: small scenarios with the faults that it takes, and little else.
_TWO: Final = Profile(
    collectors=2, clients=14, open_s=3, fault_s=6.0, twins=3, every_s=0.5, down_s=0.4
)
_ONE: Final = replace(_TWO, collectors=1)
_LOSSY: Final = {"cs": Trouble(drop_request=0.1, drop_reply=0.25)}
_MUTE: Final = {"cs": Trouble(drop_request=0.3)}
_SLOW: Final = {"cs": Trouble(slow=0.15, slow_s=3.0)}


# No mutant: the right code over a store that may lose a tail of what it has confirmed.
EVERYSEC: Final = replace(_TWO, policy="everysec", actions=("kill_store", "kill_collector"))


def _dies_late(number: int, world: World) -> None:
    """The first collector dies at a step of its disk, counted back from about the last."""
    plant(world, Point("disk", "c1", 26 - number % 13))


MUTANTS: Final[Sequence[Mutant]] = (
    Mutant(
        "ack before commit",
        "a report is answered before the store has it",
        ack_before_commit,
        replace(
            _TWO,
            open_s=4,
            actions=("kill_collector", "kill_store"),
            every_s=0.3,
            down_s=0.8,
            trouble=_MUTE,
        ),
    ),
    Mutant(
        "no duplicate check",
        "a key may be committed twice",
        no_duplicate_check,
        replace(_TWO, trouble={"ck": Trouble(drop_reply=0.2)}),
    ),
    Mutant(
        "two commands",
        "keys and sum are stored in two steps",
        two_commands,
        replace(_TWO, actions=("kill_store", "kill_collector"), trouble=_LOSSY),
    ),
    Mutant(
        "fresh seq",
        "after an unknown outcome another number is tried",
        fresh_seq,
        replace(_TWO, trouble=_LOSSY),
    ),
    Mutant(
        "no join",
        "copies that meet in a process are two reports",
        no_join,
        _ONE,
    ),
    Mutant(
        "no loss alarm",
        "what a lossy store has forgotten goes unnoticed",
        no_loss_alarm,
        replace(_TWO, clients=20, actions=("rollback",), every_s=1.0, down_s=0.2),
    ),
    Mutant(
        "unfenced seal",
        "commits are taken after the seal",
        unfenced_seal,
        replace(_TWO, clients=24, trouble=_SLOW),
    ),
    Mutant(
        "answer before durable",
        "a helper answers before the answer is stored",
        answer_before_durable,
        replace(_ONE, fault_s=10.0, every_s=0.3, actions=("kill_helper",)),
    ),
    Mutant(
        "one helper is enough",
        "a round is released without all answers",
        one_helper_is_enough,
        replace(_ONE, fault_s=10.0, every_s=2.0, down_s=4.0, actions=("kill_helper",)),
    ),
    Mutant(
        "released before stored",
        "the phase is durable before the artefact is",
        released_before_stored,
        POINTS,
        prepare=_dies_late,
    ),
    Mutant(
        "keys purged early",
        "the store forgets keys while reports may still come again",
        keys_purged_early,
        _ONE,
    ),
    Mutant(
        "cohort of the collector",
        "a helper does not count the reports of a set itself",
        cohort_of_the_collector,
        direct="test_a_helper_counts_itself",
    ),
    Mutant(
        "refund on abandon",
        "what was answered in part is refunded",
        refund_on_abandon,
        direct="test_a_refund_of_what_was_answered",
    ),
)
