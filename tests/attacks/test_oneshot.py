"""Attacks on the `oneshot` scheme, each with its control: the same attack with the defence off."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dandelion import kernel
from dandelion.descriptor import Descriptor, HelperEntry
from dandelion.encoding import identity_of, u16
from dandelion.errors import RuleError, WireError
from dandelion.messages import Ask, Report
from dandelion.schemes import oneshot
from dandelion.simulation import MemoryHelper, MemoryRound
from dandelion.vectors.inputs import known_answer_descriptor
from dandelion.verify import verify_release

SLOTS = 8


def randomness(name: str) -> Callable[[int], bytes]:
    """A reproducible source of bytes."""
    counter = 0

    def draw(size: int) -> bytes:
        nonlocal counter
        counter += 1
        return kernel.prg(1, hashlib.sha256(f"{name} {counter}".encode()).digest(), size)

    return draw


def describe(collector: bytes, helpers: tuple[HelperEntry, ...], **changes: object) -> Descriptor:
    """A small one-hot round."""
    plan = b'{"delta":"1e-8","epsilon":"20"}'
    base = replace(
        known_answer_descriptor(),
        slots=SLOTS,
        linf=1,
        l2sq=1,
        noise_var=27,
        collector=collector,
        helpers=helpers,
        plan=plan,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def one_hot(slot: int) -> oneshot.Vector:
    """The vector of a client in one bucket."""
    values = np.zeros(SLOTS, dtype=np.int64)
    values[slot] = 1
    return values


def low_bits(report: Report) -> list[int]:
    """The low bit of each slot of a masked report, as a curious collector reads it."""
    return [word & 1 for word in np.frombuffer(report.payload, dtype="<u4").tolist()]


def read_by_low_bits(mask: Callable[[int, bytes], Report], rounds: int = 200) -> int:
    """How many one-hot reports the collector reads in clear from their low bits."""
    read = 0
    for i in range(rounds):
        report = mask(i % SLOTS, hashlib.sha256(f"client {i}".encode()).digest())
        read += low_bits(report) == one_hot(i % SLOTS).tolist()
    return read


class TestCopiedMaskKey:
    """A corrupt helper announces the honest helper's mask key as its own."""

    root = hashlib.sha256(b"honest root").digest()

    def test_descriptor_with_equal_mask_keys_is_refused(self) -> None:
        """The first lock: nobody can build, sign or decode such a round."""
        _, key = oneshot.round_keys(self.root)
        entries = tuple(
            HelperEntry(identity, key)
            for identity in sorted(identity_of(bytes([i]) * 32) for i in (1, 2))
        )
        with pytest.raises(WireError, match="bad_helpers"):
            describe(identity_of(bytes(32)), entries)

    def test_party_index_keeps_equal_keys_from_giving_equal_masks(self) -> None:
        """The second lock: even with equal keys nothing can be read."""
        _, key = oneshot.round_keys(self.root)

        def masked(slot: int, secret: bytes) -> Report:
            epk, payload = kernel.mask(1, 32, bytes(32), secret, key + key, one_hot(slot))
            return Report(bytes(16), epk, payload)

        assert read_by_low_bits(masked) <= 10  # 200 * 2^-8 by chance

    def test_control_without_the_index_every_report_is_read(self) -> None:
        """With both locks off the collector reads every report on arrival."""
        _, key = oneshot.round_keys(self.root)

        def masked(slot: int, secret: bytes) -> Report:
            epk = kernel.x25519_public(secret)
            shared = kernel.shared_secret(secret, key, epk, key)
            info = bytes(32)  # ctx alone, no party
            stream = kernel.prg(1, kernel.expand(shared, "mask", info, 32), 4 * SLOTS)
            values = one_hot(slot).astype(np.uint32) + 2 * np.frombuffer(stream, dtype="<u4")
            return Report(bytes(16), epk, values.astype("<u4").tobytes())

        assert read_by_low_bits(masked) == 200


class TestOneRound:
    """A whole round in memory, with liars."""

    def opened(self, name: str, **changes: object) -> MemoryRound:
        """A round whose randomness has a name."""
        return MemoryRound.open(lambda c, h: describe(c, h, **changes), randomness(name))

    def test_sum_is_the_sum_and_duplicates_count_once(self) -> None:
        """The released vector is truth plus noise; a retry of the same bytes changes nothing."""
        round_ = self.opened("plain")
        bodies = [round_.contribute(one_hot(i % SLOTS)) for i in range(80)]
        assert not any(round_.collector.accept(body) for body in bodies)
        checked = verify_release(round_.collector.release(round_.helpers).encode())
        assert checked.n == 80
        assert np.abs(checked.sums - 10).max() <= round_.collector.descriptor.noise_bound

    def test_noise_is_exactly_what_the_helpers_say(self) -> None:
        """Truth is recovered exactly once both noises, known here, are taken off."""
        round_ = self.opened("exact")
        for i in range(16):
            round_.contribute(one_hot(i % SLOTS))
        release = round_.collector.release(round_.helpers)
        sums = verify_release(release.encode()).sums.copy()
        for helper in round_.helpers:
            d = round_.collector.descriptor
            sums -= oneshot.noise(d, helper.root, 0, release.shards[0].set_digest)
        assert sums.tolist() == [2] * SLOTS

    def test_one_missing_mask_leaves_noise_only(self) -> None:
        """With one honest helper silent, nothing plausible can be decoded (control: both)."""
        round_ = self.opened("silent")
        for i in range(16):
            round_.contribute(one_hot(i % SLOTS))
        d = round_.collector.descriptor
        shard = round_.collector.release(round_.helpers).shards[0]
        rs = [r for r, _ in shard.answers]
        oneshot.unmask(d, shard.y, rs, shard.n)
        for missing in range(2):
            with pytest.raises(WireError, match="implausible"):
                oneshot.unmask(d, shard.y, [rs[missing], bytes(d.payload_bytes)], shard.n)

    def test_a_set_that_is_not_the_sum_is_implausible(self) -> None:
        """One report too few in the set, and the round decodes to garbage, refused."""
        round_ = self.opened("mismatch")
        for i in range(16):
            round_.contribute(one_hot(i % SLOTS))
        collector = round_.collector
        collector.seen.pop(next(iter(collector.seen)))
        with pytest.raises(WireError, match="released values of shard 0"):
            verify_release(collector.release(round_.helpers).encode())

    def test_double_vector_is_implausible(self) -> None:
        """A vector in the sum twice and its key once turns the round into noise."""
        round_ = self.opened("double")
        bodies = [round_.contribute(one_hot(i % SLOTS)) for i in range(16)]
        d = round_.collector.descriptor
        round_.collector.sums[0] = oneshot.fold(d, round_.collector.sums[0], [bodies[0]])
        with pytest.raises(WireError, match="implausible"):
            verify_release(round_.collector.release(round_.helpers).encode())

    def test_report_of_one_round_is_refused_in_another(self) -> None:
        """Replay: the round id is part of ctx."""
        first, second = self.opened("one"), self.opened("two")
        body = first.contribute(one_hot(0))
        with pytest.raises(WireError, match="wrong_round"):
            second.collector.accept(body)

    def test_relabelled_report_of_another_round_is_only_noise(self) -> None:
        """A collector that rewrites the round id gains nothing: masks are bound to ctx."""
        first, second = self.opened("one"), self.opened("two")
        body = first.contribute(one_hot(0))
        for i in range(8):
            second.contribute(one_hot(i))
        second.collector.accept(body[:1] + second.collector.descriptor.round_id + body[17:])
        with pytest.raises(WireError, match="implausible"):
            verify_release(second.collector.release(second.helpers).encode())

    def test_cohort_below_minimum_is_never_unmasked(self) -> None:
        """Neither collector nor helper goes on below cohort_min."""
        round_ = self.opened("small", cohort_min=10)
        for i in range(9):
            round_.contribute(one_hot(i % SLOTS))
        with pytest.raises(RuleError, match="cohort_too_small"):
            round_.collector.release(round_.helpers)
        d, collector = round_.collector.descriptor, round_.collector
        ask = Ask.create(d.ctx, 0, collector.keys(0), collector.sums[0], collector.seed)
        for helper in round_.helpers:
            with pytest.raises(RuleError, match="cohort_too_small"):
                helper.answer(d, ask)
            assert not helper.answered

    def test_gate_replaces_a_wild_vector_by_zeros(self) -> None:
        """Whatever the plan produced, bounds hold. The control shows the damage."""
        wild = one_hot(0) * 1_000_000
        round_ = self.opened("gate")
        d = round_.collector.descriptor
        assert not oneshot.gate(d, wild)
        for _ in range(4):
            round_.contribute(one_hot(1))
        round_.contribute(wild)
        sums = verify_release(round_.collector.release(round_.helpers).encode()).sums
        assert abs(int(sums[0])) <= d.noise_bound
        key = oneshot.EphemeralKey(randomness("wild")(32))
        round_ = self.opened("gate off")
        d = round_.collector.descriptor
        for _ in range(4):
            round_.contribute(one_hot(1))
        round_.collector.accept(oneshot.mask(d, wild, key).encode())
        with pytest.raises(WireError, match="implausible"):
            verify_release(round_.collector.release(round_.helpers).encode())


class TestTwoSets:
    """Differencing inside a round."""

    def asks(self) -> tuple[MemoryRound, Ask, Ask]:
        """A round, and asks for all clients and for all but one."""
        round_ = MemoryRound.open(describe, randomness("two sets"))
        for i in range(16):
            round_.contribute(one_hot(i % SLOTS))
        collector = round_.collector
        keys = collector.keys(0)
        d = collector.descriptor
        without = oneshot.unfold(d, collector.sums[0], [collector.seen[keys[:32]]])
        both = Ask.create(d.ctx, 0, keys, collector.sums[0], collector.seed)
        fewer = Ask.create(d.ctx, 0, keys[32:], without, collector.seed)
        return round_, both, fewer

    def test_second_set_is_refused_and_the_first_answered_identically(self) -> None:
        """One answer per shard, for ever the same."""
        round_, both, fewer = self.asks()
        d = round_.collector.descriptor
        for helper in round_.helpers:
            first = helper.answer(d, both)
            with pytest.raises(RuleError, match="set_conflict"):
                helper.answer(d, fewer)
            assert helper.answer(d, both) == first

    def test_control_a_helper_that_forgets_shows_a_client_up_to_two_noises(self) -> None:
        """Without the record the difference is one client's vector plus independent noise.

        The noises do not cancel because they depend on the set: the leak is a second release, not
        the value. The second control uses noise that ignores the set: then the value lies bare.
        """
        round_, both, fewer = self.asks()
        d, collector = round_.collector.descriptor, round_.collector

        def difference(noise_set: Callable[[Ask], bytes]) -> oneshot.Vector:
            released = []
            for ask, y in ((both, collector.sums[0]), (fewer, None)):
                total = y or oneshot.unfold(d, collector.sums[0], [collector.seen[both.keys[:32]]])
                rs = [
                    oneshot.answer_vector(d, party, root, 0, noise_set(ask), ask.keys)
                    for party, root in self.roots(round_)
                ]
                released.append(oneshot.unmask(d, total, rs, ask.n))
            return released[0] - released[1]

        assert sorted(difference(lambda ask: bytes(32)).tolist()) == [0] * (SLOTS - 1) + [1]
        noisy = difference(lambda ask: ask.set_digest)
        assert np.abs(noisy).sum() > SLOTS

    @staticmethod
    def roots(round_: MemoryRound) -> list[tuple[int, bytes]]:
        """(party, root) of each helper in descriptor order."""
        ordered: list[MemoryHelper] = sorted(round_.helpers, key=lambda h: h.entry.identity)
        return [(party, helper.root) for party, helper in enumerate(ordered, start=1)]

    def test_noise_is_the_same_for_the_same_set_and_another_for_another(self) -> None:
        """Asking again averages nothing away."""
        d = describe(*_parties())
        root = hashlib.sha256(b"root").digest()
        one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
        assert np.array_equal(oneshot.noise(d, root, 0, one), oneshot.noise(d, root, 0, one))
        assert not np.array_equal(oneshot.noise(d, root, 0, one), oneshot.noise(d, root, 0, two))
        assert not np.array_equal(oneshot.noise(d, root, 0, one), oneshot.noise(d, root, 1, one))


def _parties() -> tuple[bytes, tuple[HelperEntry, ...]]:
    known = known_answer_descriptor()
    return known.collector, known.helpers


def test_gate_holds_each_bound_by_itself() -> None:
    """A vector may break linf while it keeps l2sq, and the other way round."""
    d = describe(*_parties(), linf=10, l2sq=150)
    assert oneshot.gate(d, one_hot(0) * 10)
    assert not oneshot.gate(d, one_hot(0) * 12), "144 is within l2sq, 12 beyond linf"
    assert not oneshot.gate(d, one_hot(0) * -12)
    assert not oneshot.gate(d, 10 * (one_hot(0) + one_hot(1))), "200 is beyond l2sq"
    assert not oneshot.gate(d, np.full(SLOTS, np.iinfo(np.int64).min))
    assert not oneshot.gate(d, np.zeros(SLOTS + 1, dtype=np.int64))


def test_masking_twice_under_one_key_is_refused() -> None:
    """The difference of two reports under one key is the difference of the inputs."""
    d = describe(*_parties())
    secret = hashlib.sha256(b"one key").digest()
    key = oneshot.EphemeralKey(secret)
    first = oneshot.mask(d, one_hot(1), key)
    with pytest.raises(RuleError, match="key_consumed"):
        oneshot.mask(d, one_hot(2), key)
    # The control: the same secret in a second key object, as if nothing were consumed.
    second = oneshot.mask(d, one_hot(2), oneshot.EphemeralKey(secret))
    left, right = (np.frombuffer(r.payload, dtype="<u4") for r in (first, second))
    assert (left - right).astype(np.int32).tolist() == (one_hot(1) - one_hot(2)).tolist()


def test_small_order_report_key_has_no_mask_and_is_refused() -> None:
    """Its shared secret is known to everybody, so its report would lie open."""
    d = describe(*_parties())
    body = bytes([1]) + d.round_id + bytes(32) + bytes(d.payload_bytes)
    with pytest.raises(WireError, match="bad_key"):
        Report.decode(body, d.round_id, d.report_bytes)
    # The control: the raw function gives zero for any helper.
    assert kernel.x25519(hashlib.sha256(b"any").digest(), bytes(32)) == bytes(32)


def test_shards_are_disjoint_and_cover() -> None:
    """A key belongs to one release shard, which the helper recomputes."""
    d = describe(*_parties(), shard_bits=3)
    keys = [hashlib.sha256(bytes([i])).digest() for i in range(200)]
    assert {d.shard_of(key) for key in keys} == set(range(8))
    epk = kernel.x25519_public(keys[0])
    other = kernel.x25519_public(keys[1])
    pair = b"".join(sorted((epk, other)))
    for shard in range(8):
        inside = d.shard_of(epk) == shard == d.shard_of(other)
        if inside:
            oneshot.check_keys(d, shard, pair)
        else:
            with pytest.raises(WireError, match="wrong_shard"):
                oneshot.check_keys(d, shard, pair)


def test_one_key_of_another_shard_spoils_a_set_wherever_it_stands() -> None:
    """Judging a whole list says of each key what judging it alone says."""
    d = describe(*_parties(), shard_bits=3)
    keys = [hashlib.sha256(bytes([i])).digest() for i in range(200)]
    mine = [key for key in keys if d.shard_of(key) == 5]
    stray = next(key for key in keys if d.shard_of(key) == 4)
    assert d.all_of_shard(5, b"".join(mine))
    assert not d.all_of_shard(4, b"".join(mine))
    for place in range(len(mine) + 1):
        assert not d.all_of_shard(5, b"".join([*mine[:place], stray, *mine[place:]]))
    whole = describe(*_parties())
    assert whole.all_of_shard(0, b"".join(keys))
    assert not whole.all_of_shard(1, b"".join(keys))


def test_a_helper_subtracting_its_own_noise_faces_the_others() -> None:
    """What one helper knows leaves the other's noise in place."""
    round_ = MemoryRound.open(describe, randomness("own noise"))
    for i in range(16):
        round_.contribute(one_hot(i % SLOTS))
    release = round_.collector.release(round_.helpers)
    d = release.descriptor
    sums = verify_release(release.encode()).sums
    for party, entry in enumerate(d.helpers, start=1):
        helper = next(h for h in round_.helpers if h.entry == entry)
        own = oneshot.noise(d, helper.root, 0, release.shards[0].set_digest)
        assert (sums - own).tolist() != [2] * SLOTS, party
        info = d.ctx + u16(0) + release.shards[0].set_digest
        assert kernel.expand(helper.root, "noise", info, 32) != bytes(32)
