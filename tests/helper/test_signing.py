"""Round keys and signatures (docs/protocol.md sections 11.1, 11.2 and 16)."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dandelion.descriptor import Descriptor
from dandelion.encoding import identity_of, verify
from dandelion.schemes.oneshot import round_keys
from helper.handlers import SIGNER, STATE
from helper.keeper import FORGET_KEYS_S, Keeper
from tests.helper.builders import (
    OTHER,
    T0,
    Bench,
    Running,
    ask_of,
    closed,
    envelope_of,
    make_config,
    make_descriptor,
    mutated,
    reports_of,
    secret,
)

DAY = 86_400


async def sweep(helper: Running, bench: Bench) -> None:
    """What the sweeper does every few seconds."""
    signer = helper.app[SIGNER]
    keeper = Keeper(bench.config, signer._store, signer._roots)
    await helper.app[STATE].run(keeper.sweep, int(bench.time.now))


async def test_signature_verifies_and_comes_again(bench: Bench) -> None:
    """The signature is the statement `descriptor`; the same descriptor again gets the same one."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        first = await helper.sign(envelope_of(d))
        verify(bench.identity, "descriptor", d.ctx, first.body)
        before = bench.record()
        assert (await helper.sign(envelope_of(d))).body == first.body
        assert bench.record() == before
    assert bench.entries() == [("reserve", 0)]


async def test_signature_of_an_answered_round_can_be_had_again(bench: Bench) -> None:
    """That the root is gone because the round was answered is no reason to refuse."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
        verify(bench.identity, "descriptor", d.ctx, (await helper.sign(envelope_of(d))).body)


def foreign(d: Descriptor) -> Descriptor:
    """The same round with a third helper in this one's place."""
    mine = next(entry for entry in d.helpers if entry.identity != OTHER)
    stranger = replace(mine, identity=identity_of(secret("third")))
    others = [entry for entry in d.helpers if entry.identity == OTHER]
    return replace(d, helpers=tuple(sorted([stranger, *others], key=lambda e: e.identity)))


def with_key(d: Descriptor, mask_key: bytes, identity: bytes) -> Descriptor:
    """The same round with another mask key for one helper."""
    entries = [replace(e, mask_key=mask_key) if e.identity == identity else e for e in d.helpers]
    return replace(d, helpers=tuple(entries))


OTHER_COLLECTOR = secret("another collector")

REFUSALS: dict[str, tuple[str, Callable[[Descriptor], bytes]]] = {
    "undecodable": ("bad_magic", lambda d: mutated(d, lambda b: b"x" + b[1:])),
    "no noise": ("bad_noise", lambda d: mutated(d, lambda b: b[:66] + bytes(8) + b[74:])),
    "leftovers": ("trailing", lambda d: envelope_of(d) + b"\x00"),
    "cut": ("truncated", lambda d: envelope_of(d)[:-1]),
    "unsigned": ("bad_signature", lambda d: envelope_of(d)[:-64] + bytes(64)),
    "signed by another": ("bad_signature", lambda d: envelope_of(d, OTHER_COLLECTOR)),
    "unknown collector": (
        "unknown_collector",
        lambda d: envelope_of(replace(d, collector=identity_of(OTHER_COLLECTOR)), OTHER_COLLECTOR),
    ),
    "not listed": ("unknown_key", lambda d: envelope_of(foreign(d))),
    "expired": ("expired", lambda d: envelope_of(replace(d, opens=1, closes=2, expires=T0))),
    "unknown scope": ("unknown_scope", lambda d: envelope_of(replace(d, scope="elsewhere"))),
    "small cohort": ("floor_cohort", lambda d: envelope_of(replace(d, cohort_min=2))),
    "low noise": ("floor_noise", lambda d: envelope_of(replace(d, noise_var=100))),
    "long life": ("floor_time", lambda d: envelope_of(replace(d, expires=T0 + 10_001))),
    "opens much later": (
        "floor_time",
        lambda d: envelope_of(replace(d, opens=T0 + 9_000, closes=T0 + 9_100, expires=T0 + 10_001)),
    ),
    "opened long ago": ("floor_time", lambda d: envelope_of(replace(d, opens=T0 - 9_001))),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refused_descriptor_changes_nothing(bench: Bench, name: str) -> None:
    """Each rule of 11.2 refuses with its token; the key stays unused and signs afterwards."""
    token, build = REFUSALS[name]
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        before = bench.record()
        assert (await helper.sign(build(d))).token == token
        assert bench.record() == before
        assert (await helper.sign(envelope_of(d))).status == 200


async def test_mask_key_of_another_is_unknown(bench: Bench) -> None:
    """A descriptor that names a mask key this helper did not make is not signed."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        swapped = with_key(d, make_key_of("swapped"), helper.identity)
        before = bench.record()
        assert (await helper.sign(envelope_of(swapped))).token == "unknown_key"
        assert bench.record() == before


def make_key_of(name: str) -> bytes:
    """A valid mask key that nobody here made."""
    return round_keys(secret(name))[1]


async def test_second_descriptor_under_one_key_is_refused(bench: Bench) -> None:
    """One mask key, one descriptor, ever: also after the round was answered, also after restart."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        second = envelope_of(replace(d, noise_var=d.noise_var + 1))
        before = bench.record()
        assert (await helper.sign(second)).token == "key_used"
        assert bench.record() == before
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
        assert (await helper.sign(second)).token == "key_used"
    async with bench.helper() as helper:
        assert (await helper.sign(second)).token == "key_used"


async def test_of_two_descriptors_at_once_one_wins(bench: Bench) -> None:
    """Concurrent descriptors under one key: one signature, one reservation, the rest `key_used`."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        rivals = [envelope_of(replace(d, noise_var=d.noise_var + i)) for i in range(8)]
        replies = await asyncio.gather(*(helper.sign(rival) for rival in rivals))
        assert sorted(reply.token for reply in replies) == ["200"] + ["key_used"] * 7
    assert bench.entries() == [("reserve", 0)]


async def test_unused_key_dies_of_age(bench: Bench) -> None:
    """A root that has signed nothing for `key_unused_s` is erased and signs nothing more."""
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        bench.time.now = T0 + 599
        await sweep(helper, bench)
        assert len(list(bench.roots.iterdir())) == 1
        bench.time.now = T0 + 600
        await sweep(helper, bench)
        assert list(bench.roots.iterdir()) == []
        assert (await helper.sign(envelope_of(d))).token == "key_gone"
        bench.time.now = T0 + FORGET_KEYS_S + 1
        await sweep(helper, bench)
        late = replace(d, opens=T0 + DAY, closes=T0 + DAY + 1_000, expires=T0 + DAY + 2_000)
        assert (await helper.sign(envelope_of(late))).token == "unknown_key"


async def test_unused_keys_are_few(bench: Bench) -> None:
    """At most `keys_unused_max` roots wait at once; signing or age makes room."""
    bench.configure(keys_unused_max=2)
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        await helper.make_key()
        before = bench.record()
        assert (await helper.request("POST", "/v1/keys")).token == "too_many_keys"
        assert bench.record() == before
        assert (await helper.sign(envelope_of(d))).status == 200
        await helper.make_key()


async def test_open_rounds_of_a_scope_are_few(bench: Bench) -> None:
    """A scope has a cap of rounds that can still be answered."""
    scope: dict[str, Any] = {"epsilon": 50.0, "delta": 1e-8, "period_s": DAY, "open_rounds_max": 2}
    bench.configure(scopes={"test": scope})
    async with bench.helper() as helper:
        d = await helper.signed_round()
        await helper.signed_round()
        third = make_descriptor(helper.identity, await helper.make_key())
        before = bench.record()
        assert (await helper.sign(envelope_of(third))).token == "too_many_rounds"
        assert bench.record() == before
        closed(bench, d)
        await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
        assert (await helper.sign(envelope_of(third))).status == 200


def budget_of(rounds: float, period_s: int = DAY) -> dict[str, dict[str, Any]]:
    """Scopes whose budget pays so many rounds of `make_descriptor` in a period."""
    cost = make_descriptor(identity_of(secret("h")), make_key_of("h")).rho_units
    return {"test": {"rho_units": int(rounds * cost), "period_s": period_s}}


async def test_exhausted_budget_signs_nothing_more(bench: Bench) -> None:
    """Reservations count from the signature on; the round that does not fit is refused."""
    bench.configure(scopes=budget_of(2.6))
    async with bench.helper() as helper:
        await helper.signed_round()
        await helper.signed_round()
        third = make_descriptor(helper.identity, await helper.make_key())
        before = bench.record()
        assert (await helper.sign(envelope_of(third))).token == "budget_exhausted"
        assert bench.record() == before
        # A cheaper round still fits into what is left.
        cheap = replace(third, noise_var=2 * third.noise_var)
        assert (await helper.sign(envelope_of(cheap))).status == 200


async def test_shards_of_a_round_are_paid_once(bench: Bench) -> None:
    """Shards are disjoint: answering both of them costs the round's rho, not twice."""
    bench.configure(scopes=budget_of(2))
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        for shard in range(2):
            await bench.answered(helper, ask_of(d, reports_of(d, range(40), shard), shard))
        await helper.signed_round()
        third = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(envelope_of(third))).token == "budget_exhausted"


async def test_each_period_has_its_own_budget(bench: Bench) -> None:
    """A round counts in the period in which it opens."""
    period = T0 + DAY - T0 % DAY
    bench.configure(scopes=budget_of(1), floors={"cohort_min": 3, "lifetime_max_s": 10 * DAY})
    async with bench.helper() as helper:
        await helper.signed_round(opens=period, closes=period + 10, expires=period + 100)
        await helper.signed_round(opens=period - 1, closes=period + 9, expires=period + 99)
        again = make_descriptor(
            helper.identity,
            await helper.make_key(),
            opens=period + DAY - 1,
            closes=period + DAY,
            expires=period + DAY + 9,
        )
        assert (await helper.sign(envelope_of(again))).token == "budget_exhausted"


async def test_backdated_round_is_paid_by_the_present(bench: Bench) -> None:
    """A round that claims to have opened yesterday is answered by today's clients: today pays."""
    bench.configure(scopes=budget_of(1), floors={"cohort_min": 3, "lifetime_max_s": 10 * DAY})
    async with bench.helper() as helper:
        await helper.signed_round(opens=T0 - DAY, closes=T0 + 9, expires=T0 + 99)
        today = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(envelope_of(today))).token == "budget_exhausted"


async def test_budget_is_of_the_scope(bench: Bench) -> None:
    """One scope's rounds do not spend another's budget."""
    scopes = budget_of(1)
    bench.configure(scopes=scopes | {"second": scopes["test"]})
    async with bench.helper() as helper:
        await helper.signed_round()
        await helper.signed_round(scope="second")
        third = make_descriptor(helper.identity, await helper.make_key())
        assert (await helper.sign(envelope_of(third))).token == "budget_exhausted"


async def test_rules_are_judged_in_their_order(bench: Bench) -> None:
    """A descriptor with every fault at once is refused for the first, then for the next."""
    bench.configure(scopes=budget_of(0.6))
    async with bench.helper() as helper:
        good = make_descriptor(helper.identity, await helper.make_key())
        worst = replace(
            with_key(good, make_key_of("x"), helper.identity),
            opens=T0 - 20_000,
            closes=T0 - 10_000,
            expires=T0,
            scope="elsewhere",
            cohort_min=1,
            noise_var=100,
        )
        repairs: list[tuple[str, Callable[[Descriptor], Descriptor]]] = [
            ("unknown_key", lambda d: replace(d, helpers=good.helpers)),
            ("expired", lambda d: replace(d, expires=T0 + 1)),
            ("unknown_scope", lambda d: replace(d, scope="test")),
            ("floor_cohort", lambda d: replace(d, cohort_min=3)),
            ("floor_noise", lambda d: replace(d, noise_var=good.noise_var)),
            ("floor_time", lambda d: replace(d, opens=T0 - 9_000, closes=T0)),
            ("budget_exhausted", lambda d: replace(d, noise_var=2 * good.noise_var)),
        ]
        for token, repair in repairs:
            assert (await helper.sign(envelope_of(worst))).token == token
            worst = repair(worst)
        assert (await helper.sign(envelope_of(worst))).status == 200


async def test_floors_of_the_configuration_hold_by_default(bench: Bench) -> None:
    """Unless told otherwise a helper signs no cohort below 1,000 and no round above epsilon 4."""
    config = make_config(bench.state_dir, floors={})
    assert config.floors.cohort_min == 1_000
    at_four = config.floors.per_round.units
    assert (
        at_four
        == make_config(
            bench.state_dir, floors={"per_round": {"epsilon": 4.0, "delta": 1e-8}}
        ).floors.per_round.units
    )
