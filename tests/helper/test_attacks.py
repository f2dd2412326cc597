"""Attacks on one helper, each beside a control: the same attack with the defence switched off.

The attacker is the collector, with the other helper's root in hand: what this helper alone
withstands is what "one honest helper" means (docs/protocol.md sections 6 and 11).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import dandelion.descriptor
from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.messages import Ask
from dandelion.schemes import oneshot
from helper import answers
from helper.answers import Answers
from helper.roots import Roots
from helper.signing import Signer
from helper.store import Store
from tests.helper.builders import (
    ALICE,
    ANY_NOISE,
    OTHER,
    QUIET,
    Bench,
    Running,
    answer_in,
    ask_of,
    closed,
    envelope_of,
    make_descriptor,
    mutated,
    other_answer,
    reports_of,
    secret,
    sum_of,
    with_and_without_alice,
)


def reads_alice(d: Descriptor, first: tuple[Ask, bytes], second: tuple[Ask, bytes]) -> bool:
    """Whether two answers to two sets give Alice's vector away."""
    both, crowd = with_and_without_alice(d)
    totals = []
    for reports, (ask, body) in ((both, first), (crowd, second)):
        rs = [answer_in(body, d).r, other_answer(d, ask)]
        totals.append(oneshot.unmask(d, sum_of(d, reports), rs, ask.n))
    return bool(np.all(np.abs(totals[0] - totals[1] - ALICE) < 12))


async def ask_twice(bench: Bench, helper: Running, d: Descriptor) -> bool:
    """Asks with Alice and without. Whether both were answered, and her values were read."""
    both, crowd = (ask_of(d, reports) for reports in with_and_without_alice(d))
    first = await bench.answered(helper, both)
    reply = await helper.ask(crowd)
    if reply.status != 202:
        assert reply.token in ("set_conflict", "key_gone")
        assert answer_in((await helper.fetch(d.ctx)).body, d).set_digest == both.set_digest
        return False
    return reads_alice(d, (both, first), (crowd, await bench.answered(helper, crowd)))


def forget_answers(patch: pytest.MonkeyPatch) -> None:
    """A helper that does not remember what it answered and keeps its root."""
    patch.setattr(Store, "answer", lambda *_: None)
    patch.setattr(Store, "set_state", lambda *_: None)
    patch.setattr(Roots, "erase", lambda *_: None)

    def overwrite(store: Store, ctx: bytes, shard: int, stored: Any) -> None:
        store._db.execute("DELETE FROM answers")
        row = (ctx, shard, stored.n, stored.set_digest, stored.sum, stored.answer)
        store._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    patch.setattr(Store, "add_answer", overwrite)
    patch.setattr(Store, "append", lambda *_: None)


async def test_attack_two_sets_that_differ_in_one_client(bench: Bench) -> None:
    """S + {Alice} and S: the second is refused, so nothing can be subtracted."""
    bench.configure(**ANY_NOISE)
    async with bench.helper() as helper:
        d = await helper.signed_round(**QUIET)
        closed(bench, d)
        assert not await ask_twice(bench, helper, d)


async def test_control_two_sets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that forgets what it answered gives Alice away."""
    bench.configure(**ANY_NOISE)
    async with bench.helper() as helper:
        d = await helper.signed_round(**QUIET)
        closed(bench, d)
        real = Store.answer
        forget_answers(monkeypatch)

        async def fetched(ask: Ask) -> bytes:
            assert (await helper.ask(ask)).status == 202
            await helper.computed()
            bench.time.steady += 1_000
            with monkeypatch.context() as patch:
                patch.setattr(Store, "answer", real)
                return (await helper.fetch(d.ctx)).body

        both, crowd = (ask_of(d, reports) for reports in with_and_without_alice(d))
        first, second = await fetched(both), await fetched(crowd)
        assert reads_alice(d, (both, first), (crowd, second))


async def test_attack_burnt_answer(bench: Bench) -> None:
    """Rubbish signed by nobody does not spend the one answer."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        rubbish = ask_of(d, reports_of(d, range(50, 60)), seed=secret("stranger"))
        assert (await helper.ask(rubbish)).token == "bad_signature"
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))


async def test_control_burnt_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that answers before it judges has nothing left for the real set."""
    monkeypatch.setattr(answers, "_judge_set", lambda *_: None)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        rubbish = ask_of(d, reports_of(d, range(50, 60)), seed=secret("stranger"))
        await bench.answered(helper, rubbish)
        assert (await helper.ask(ask_of(d, reports_of(d, range(5))))).token == "set_conflict"


async def two_signatures(helper: Running) -> list[str]:
    """Shows two descriptors under one mask key; the replies' tokens."""
    d = make_descriptor(helper.identity, await helper.make_key())
    tampered = replace(d, noise_var=d.noise_var + 1)
    return [(await helper.sign(envelope_of(each))).token for each in (d, tampered)]


async def test_attack_two_descriptors_under_one_key(bench: Bench) -> None:
    """Clients cannot be shown two rounds whose reports one root can open."""
    async with bench.helper() as helper:
        assert await two_signatures(helper) == ["200", "key_used"]


async def test_control_two_descriptors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that keeps no record of what a key signed signs both."""
    monkeypatch.setattr(Signer, "_record", lambda *_: None)
    async with bench.helper() as helper:
        assert await two_signatures(helper) == ["200", "200"]


def copied_key(d: Descriptor) -> bytes:
    """The descriptor with this helper's mask key in both entries."""
    mine, theirs = sorted(d.helpers, key=lambda entry: entry.identity == OTHER)
    return mutated(d, lambda data: data.replace(theirs.mask_key, mine.mask_key))


async def test_attack_copied_mask_key(bench: Bench) -> None:
    """A descriptor in which another helper copied this one's key is not signed."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(copied_key(d))).token == "bad_helpers"


async def test_control_copied_mask_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison of keys it is signed like any other."""
    monkeypatch.setattr(dandelion.descriptor, "_judge_helpers", lambda _: None)
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(copied_key(d))).status == 200


WEAKENED = {
    "lowered noise": ("floor_noise", {"noise_var": 20_000}),
    "cohort of one": ("floor_cohort", {"cohort_min": 1}),
    "endless round": ("floor_time", {"expires": 2_000_000_000}),
}


@pytest.mark.parametrize("name", WEAKENED)
async def test_attack_weakened_descriptor(bench: Bench, name: str) -> None:
    """The collector alone cannot lower what protects the clients."""
    token, changes = WEAKENED[name]
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key(), **changes)
        assert (await helper.sign(envelope_of(d))).token == token


@pytest.mark.parametrize("name", WEAKENED)
async def test_control_weakened_descriptor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A helper without floors signs all of them."""
    monkeypatch.setattr(Signer, "_judge", lambda *_: None)
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key(), **WEAKENED[name][1])
        assert (await helper.sign(envelope_of(d))).status == 200


async def test_attack_cohort_of_one_counted_often(bench: Bench) -> None:
    """The helper counts distinct keys itself; one key many times is no cohort."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        assert (await helper.ask(ask_of(d, reports_of(d, [1]) * 5))).token == "bad_set"


async def test_control_cohort_of_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the order of keys one client passes for five: the mean is her value."""
    monkeypatch.setattr(kernel, "first_not_ascending", lambda _: None)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, [1]) * 5))


async def test_attack_early_ask(bench: Bench) -> None:
    """A tiny set asked for while the round is still open is refused."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        bench.time.now = d.opens
        assert (await helper.ask(ask_of(d, reports_of(d, range(3))))).token == "not_closed"


async def test_control_early_ask(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule about time it is answered."""
    monkeypatch.setattr(answers, "_judge_time", lambda *_: None)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        bench.time.now = d.opens
        await bench.answered(helper, ask_of(d, reports_of(d, range(3))))


async def test_two_asks_at_once_cannot_both_be_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if both asks pass as first, the transaction takes one answer per shard."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        first, second = (ask_of(d, reports_of(d, range(n), 0), 0) for n in (20, 30))
        await bench.answered(helper, first)
        before = bench.record()
        (path,) = bench.roots.iterdir()
        root = path.read_bytes()
        # The second ask gets past every look at what was answered.
        monkeypatch.setattr(Answers, "_claim", lambda *_: root)
        assert (await helper.ask(second)).status == 202
        await helper.computed()
        assert bench.record() == before
