"""Attacks on one helper, each beside a control: the same attack with the defence switched off.

The attacker is the collector, with the other helper's root in hand: what this helper alone
withstands is what "one honest helper" means (docs/protocol.md sections 6 and 11).
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dandelion.descriptor
from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.messages import Ask, Report
from dandelion.schemes import oneshot
from helper import answers
from helper.answers import Answers
from helper.keeper import Keeper
from helper.roots import Marked, Roots
from helper.signing import Signer
from helper.store import State, Store
from tests.helper.builders import (
    OTHER,
    Bench,
    Running,
    answer_in,
    ask_of,
    closed,
    copy_state,
    envelope_of,
    make_descriptor,
    mutated,
    other_answer,
    report_of,
    reports_of,
    secret,
    sum_of,
)

ALICE = [90, -20, 5, 37]  # what the attacker wants to know
QUIET: dict[str, Any] = {"noise_var": 1, "l2sq": 10_000}
# Nearly no noise: an attack that gets a second answer reads Alice's values by rounding.
ANY_NOISE: dict[str, Any] = {
    "floors": {"cohort_min": 3, "lifetime_max_s": 10_000, "per_round": {"rho_units": 2**62}},
    "scopes": {"test": {"rho_units": 2**62, "period_s": 86_400}},
}


def with_and_without_alice(d: Descriptor) -> tuple[list[Report], list[Report]]:
    """Two sets that differ in one client."""
    crowd = reports_of(d, range(5))
    alice = report_of(d, 99, ALICE)
    return sorted([*crowd, alice], key=lambda report: report.epk), crowd


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


# Restored machines, section 11.3.


async def restored_database(bench: Bench, shards: int = 1) -> bool:
    """Copies the database, has the first set answered, puts the copy back, asks for the second.

    Whether Alice was read.
    """
    bench.configure(**ANY_NOISE)
    bits = shards.bit_length() - 1
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=bits, **QUIET)
    closed(bench, d)
    shard = d.shard_of(report_of(d, 99, ALICE).epk)
    crowd = reports_of(d, range(20), shard)
    both = sorted([*crowd, report_of(d, 99, ALICE)], key=lambda report: report.epk)
    saved = bench.database.read_bytes()
    asks = [ask_of(d, both, shard), ask_of(d, crowd, shard)]
    async with bench.helper() as helper:
        first = await bench.answered(helper, asks[0])
    bench.database.write_bytes(saved)
    async with bench.helper() as helper:
        reply = await helper.ask(asks[1])
        if reply.token == "key_gone":
            # The old set is not answered either: the helper no longer knows what it said.
            assert (await helper.ask(asks[0])).token == "key_gone"
            return False
        second = await bench.answered(helper, asks[1])
    totals = []
    for reports, ask, body in zip((both, crowd), asks, (first, second), strict=True):
        rs = [answer_in(body, d).r, other_answer(d, ask)]
        totals.append(oneshot.unmask(d, sum_of(d, reports), rs, ask.n))
    return bool(np.all(np.abs(totals[0] - totals[1] - ALICE) < 12))


async def test_attack_restored_database(bench: Bench) -> None:
    """A database from before the answer meets an erased root: refused."""
    assert not await restored_database(bench)


async def test_control_restored_database(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If roots outlived their answer, the restored helper would answer a second set."""
    monkeypatch.setattr(Roots, "erase", lambda *_: None)
    monkeypatch.setattr(Marked, "has_answered", lambda *_: False)
    assert await restored_database(bench)


async def test_attack_restored_database_between_shards(bench: Bench) -> None:
    """While other shards wait the root is still there; its name tells which shard was answered."""
    assert not await restored_database(bench, shards=2)


async def test_control_restored_database_between_shards(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that mark in the name the second set is answered."""
    monkeypatch.setattr(Marked, "has_answered", lambda *_: False)
    assert await restored_database(bench, shards=2)


async def test_attack_restored_root_from_before_the_answer(bench: Bench) -> None:
    """A root put back after it was erased answers nothing more and is erased again."""
    bench.configure(**ANY_NOISE)
    async with bench.helper() as helper:
        d = await helper.signed_round(**QUIET)
        closed(bench, d)
        (path,) = bench.roots.iterdir()
        root = path.read_bytes()
        first, second = (ask_of(d, reports) for reports in with_and_without_alice(d))
        body = await bench.answered(helper, first)
        path.write_bytes(root)
        assert (await helper.ask(second)).token == "set_conflict"
        assert (await helper.fetch(d.ctx)).body == body
    path.write_bytes(root)
    async with bench.helper() as helper:
        assert list(bench.roots.iterdir()) == []
        assert (await helper.ask(second)).token == "set_conflict"


async def restored_unmarked_root(bench: Bench) -> tuple[str, str, str]:
    """Puts the root back as it was before the signature. Tokens of an ask, a rival, a retry."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        saved = copy_state(bench.roots, bench.directory / "saved")
        assert (await helper.sign(envelope_of(d))).status == 200
        copy_state(saved, bench.roots)
        closed(bench, d)
        ask = await helper.ask(ask_of(d, reports_of(d, range(5))))
        rival = await helper.sign(envelope_of(replace(d, noise_var=d.noise_var + 1)))
        again = await helper.sign(envelope_of(d))
        return ask.token, rival.token, again.token


async def test_attack_restored_unmarked_root(bench: Bench) -> None:
    """A record without its marked root: neither an answer nor another signature."""
    assert await restored_unmarked_root(bench) == ("key_gone", "key_used", "key_gone")
    async with bench.helper():
        assert list(bench.roots.iterdir()) == []


async def test_control_restored_unmarked_root(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that takes any root of the right key answers with one that was put back."""

    def any_root(roots: Roots, mask_key: bytes, ctx: bytes) -> Marked | None:
        found = [root for root in roots.unused() if root.mask_key == mask_key]
        return roots.mark(found[0], ctx, 2**40) if found else None

    monkeypatch.setattr(Roots, "of_round", any_root)
    assert (await restored_unmarked_root(bench))[0] == "202"


async def test_attack_database_from_before_the_signature(bench: Bench) -> None:
    """A marked root without its record: no second descriptor is signed under its key."""
    assert await signs_after_restore(bench) == ["key_gone", "key_gone"]


async def signs_after_restore(bench: Bench) -> list[str]:
    """Signs, restores the database, shows the same descriptor and another one."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
    saved = bench.database.read_bytes()
    async with bench.helper() as helper:
        assert (await helper.sign(envelope_of(d))).status == 200
    bench.database.write_bytes(saved)
    async with bench.helper() as helper:
        shown = [replace(d, noise_var=d.noise_var + 1), d]
        return [(await helper.sign(envelope_of(each))).token for each in shown]


async def test_control_database_from_before_the_signature(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the root were not marked, the restored helper would sign a second descriptor."""
    monkeypatch.setattr(Roots, "mark", lambda *_: None)
    assert await signs_after_restore(bench) == ["200", "key_used"]


async def signs_after_merged_restore(bench: Bench) -> str:
    """Signs, then copies a backup from before over the state, as a restore that deletes nothing
    does: both the unmarked and the marked root are there. The reply to a second descriptor.
    """
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
    saved = bench.copy("saved")
    async with bench.helper() as helper:
        assert (await helper.sign(envelope_of(d))).status == 200
    shutil.copytree(saved, bench.state_dir, dirs_exist_ok=True)
    async with bench.helper() as helper:
        assert len(list(bench.roots.iterdir())) == 2
        return (await helper.sign(envelope_of(replace(d, noise_var=d.noise_var + 1)))).token


async def test_attack_backup_copied_over_the_state(bench: Bench) -> None:
    """The marked root beside the restored one gives the restore away."""
    assert await signs_after_merged_restore(bench) == "key_gone"


async def test_control_backup_copied_over_the_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that sees no marked roots signs a second descriptor under the key."""
    monkeypatch.setattr(Roots, "marked", lambda _: [])
    assert await signs_after_merged_restore(bench) == "200"


# Keys stolen later.


def found_in(directory: Path, needles: list[bytes]) -> list[str]:
    """Files of a directory that contain one of the byte strings, in raw or in hexadecimal form."""
    return [
        path.name
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and any(n in path.read_bytes() or n.hex().encode() in path.read_bytes() for n in needles)
    ]


async def state_after_answer(bench: Bench) -> list[str]:
    """Files that still hold the root or the mask scalar after the last answer."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        (path,) = bench.roots.iterdir()
        root = path.read_bytes()
        needles = [root, oneshot.round_keys(root)[0]]
        assert found_in(bench.state_dir, needles) == [path.name]
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
        return found_in(bench.state_dir, needles)


async def test_attack_key_stolen_after_the_answer(bench: Bench) -> None:
    """Nothing in the state directory, database included, opens a round that was answered."""
    assert await state_after_answer(bench) == []


async def test_control_key_stolen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that does not erase leaves the root to be found."""
    monkeypatch.setattr(Roots, "erase", lambda *_: None)
    assert len(await state_after_answer(bench)) == 1


async def test_erasing_overwrites_before_it_unlinks(bench: Bench) -> None:
    """A name that survives, as a hard link does, leads to zeros."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        (path,) = bench.roots.iterdir()
        (bench.directory / "link").hardlink_to(path)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
    assert (bench.directory / "link").read_bytes() == bytes(32)


# Refunds, section 16.


async def budget_after_expiry(bench: Bench, before_expiry: Callable[[], object]) -> str:
    """One round eats the budget and expires; whether another can be signed in its period."""
    cost = make_descriptor(bench.identity, oneshot.round_keys(secret("k"))[1]).rho_units
    bench.configure(scopes={"test": {"rho_units": cost, "period_s": 86_400}})
    async with bench.helper() as helper:
        d = await helper.signed_round()
        full = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(envelope_of(full))).token == "budget_exhausted"
    before_expiry()
    bench.time.now = d.expires
    async with bench.helper() as helper:
        later = {"opens": d.expires, "closes": d.expires + 1, "expires": d.expires + 2}
        after = make_descriptor(helper.identity, await helper.make_key(), **later)
        return (await helper.sign(envelope_of(after))).token


async def test_reservation_is_freed_by_erasing_the_root_unanswered(bench: Bench) -> None:
    """A round that nobody answered costs nothing once its root is gone, and only then."""
    assert await budget_after_expiry(bench, lambda: None) == "200"
    assert bench.entries() == [("reserve", 0), ("free", 0), ("reserve", 0)]


async def test_attack_refund_without_the_root(bench: Bench) -> None:
    """If the root is not there to be erased, it may have answered: nothing is freed."""

    def lose_root() -> None:
        for path in bench.roots.iterdir():
            path.unlink()

    assert await budget_after_expiry(bench, lose_root) == "budget_exhausted"
    assert bench.entries() == [("reserve", 0)]


async def test_control_refund(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that frees whatever has no answer in its database refunds a spent round."""

    def free_always(keeper: Keeper, signing: Any, _root: object) -> None:
        with keeper._store.transaction():
            keeper._store.set_state(signing.ctx, State.FREEING)

    monkeypatch.setattr(Keeper, "_expire", free_always)

    def lose_root() -> None:
        for path in bench.roots.iterdir():
            path.unlink()

    assert await budget_after_expiry(bench, lose_root) == "200"


async def refunds_half_answered_round(bench: Bench) -> bool:
    """One shard is answered, its database restored to before that, the round expires."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
    saved = bench.database.read_bytes()
    closed(bench, d)
    async with bench.helper() as helper:
        await bench.answered(helper, ask_of(d, reports_of(d, range(40), 0), 0))
    bench.database.write_bytes(saved)
    bench.time.now = d.expires
    async with bench.helper():
        assert list(bench.roots.iterdir()) == []
    return ("free", 0) in bench.entries()


async def test_attack_refund_of_a_round_answered_in_part(bench: Bench) -> None:
    """The root's name tells that a shard was answered: nothing is freed."""
    assert not await refunds_half_answered_round(bench)


async def test_control_refund_of_a_round_answered_in_part(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that mark the reservation of a spent round is freed."""
    monkeypatch.setattr(Roots, "note_answered", lambda *_: None)
    assert await refunds_half_answered_round(bench)


async def test_answered_round_keeps_its_charge_after_expiry(bench: Bench) -> None:
    """What was answered is paid for, for the rest of the period."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
    bench.time.now = d.expires
    async with bench.helper():
        pass
    assert bench.entries() == [("reserve", 0), ("charge", 0)]


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
