"""Restored machines, keys stolen later, refunds: attacks on what a helper remembers, with controls
(docs/protocol.md sections 11.3 and 16).
"""

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dandelion.schemes import oneshot
from helper.answers import Answers
from helper.keeper import Keeper
from helper.roots import Marked, Roots
from helper.store import Signing, State, Stored
from tests.helper.builders import (
    ALICE,
    ANY_NOISE,
    QUIET,
    Bench,
    answer_in,
    ask_of,
    closed,
    copy_state,
    envelope_of,
    make_descriptor,
    other_answer,
    report_of,
    reports_of,
    secret,
    sum_of,
    with_and_without_alice,
)

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


async def disk_fails_after_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """The disk fails while the root is erased, the answer is fetched, the database is restored.

    Replies to the fetch, and to an ask for a second set.
    """

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "failed")

    async with bench.helper() as helper:
        d = await helper.signed_round()
    saved = bench.database.read_bytes()
    closed(bench, d)
    async with bench.helper() as helper:
        with monkeypatch.context() as patch:
            patch.setattr(Roots, "erase", failing)
            assert (await helper.ask(ask_of(d, reports_of(d, range(5))))).status == 202
            await helper.computed()
            bench.time.steady += 1_000
            early = await helper.fetch(d.ctx)
        if early.status != 200:
            assert (await helper.fetch(d.ctx)).status == 200
    bench.database.write_bytes(saved)
    async with bench.helper() as helper:
        second = await helper.ask(ask_of(d, reports_of(d, range(4))))
    return early.token, second.token


async def test_attack_disk_fails_after_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer does not leave before its root is gone, although it is stored."""
    tokens = await disk_fails_after_the_answer(bench, monkeypatch)
    assert tokens == ("store_unavailable", "key_gone")


async def test_control_disk_fails_after_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that hands out whatever is stored answers a second set."""

    def stored(answers: Answers, signing: Signing, shard: int) -> Stored | None:
        return answers._store.answer(signing.ctx, shard)

    monkeypatch.setattr(Answers, "_fetchable", stored)
    assert await disk_fails_after_the_answer(bench, monkeypatch) == ("200", "202")


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
