"""Asks and answers over HTTP (docs/protocol.md sections 6, 7 and 11.4)."""

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.encoding import sign
from dandelion.messages import Ask
from dandelion.schemes import oneshot
from helper.answers import Answers
from tests.helper.builders import (
    COLLECTOR_SEED,
    T0,
    Bench,
    answer_in,
    ask_of,
    closed,
    other_answer,
    reports_of,
    secret,
    sum_of,
)


async def test_released_total_is_the_clients_sum_plus_noise(bench: Bench) -> None:
    """Both helpers' answers take every mask off the sum and leave noise of the stated size."""
    async with bench.helper() as helper:
        d = await helper.signed_round(noise_var=50_000)
        closed(bench, d)
        reports = reports_of(d, range(1, 11))
        ask = ask_of(d, reports)
        answer = answer_in(await bench.answered(helper, ask), d)
    answer.check(ask, d.party_of(bench.identity), bench.identity)
    total = oneshot.unmask(d, sum_of(d, reports), [answer.r, other_answer(d, ask)], ask.n)
    noise = total - sum(range(1, 11))
    assert np.any(noise != 0)
    assert np.all(np.abs(noise) < 12 * 317)


async def test_every_shard_is_answered_and_the_last_erases_the_root(bench: Bench) -> None:
    """A root serves all shards of its round and dies with the last answer."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        for shard in range(2):
            assert len(list(bench.roots.iterdir())) == 1
            ask = ask_of(d, reports_of(d, range(40), shard), shard)
            answer = answer_in(await bench.answered(helper, ask), d)
            answer.check(ask, d.party_of(bench.identity), bench.identity)
    assert list(bench.roots.iterdir()) == []
    assert bench.entries() == [("reserve", 0), ("charge", 0), ("charge", 1)]


def signed(d: Descriptor, keys: bytes, shard: int = 0) -> bytes:
    """A well signed ask for any keys, in any order."""
    return Ask.create(d.ctx, shard, keys, bytes(d.payload_bytes), COLLECTOR_SEED).encode()


def good(d: Descriptor) -> Ask:
    """An ask that every rule lets pass."""
    return ask_of(d, reports_of(d, range(5)))


def unsorted(d: Descriptor) -> bytes:
    """The keys of a good ask in falling order."""
    keys = good(d).keys
    return signed(d, b"".join(keys[at : at + 32] for at in range(len(keys) - 32, -1, -32)))


def repeated(d: Descriptor) -> bytes:
    """One client four times: a cohort of one that counts four."""
    return signed(d, good(d).keys[:32] * 4)


def with_key(d: Descriptor, key: bytes) -> bytes:
    """A good set with one key more, in its place."""
    keys = good(d).keys
    return signed(d, b"".join(sorted([keys[at : at + 32] for at in range(0, 160, 32)] + [key])))


def misnamed(d: Descriptor) -> bytes:
    """A good ask that claims another number of keys than it has."""
    return good(d).encode()[:35] + (6).to_bytes(4, "big") + good(d).encode()[39:]


def resigned(d: Descriptor, label: str) -> bytes:
    """A good ask with the collector's signature of another kind of statement."""
    ask = good(d)
    return replace(ask, signature=sign(COLLECTOR_SEED, label, ask._body())).encode()


BAD_ASKS: dict[str, tuple[str, Callable[[Descriptor], bytes]]] = {
    "version": ("bad_version", lambda d: b"\x02" + good(d).encode()[1:]),
    "empty": ("truncated", lambda d: b""),
    "head only": ("truncated", lambda d: good(d).encode()[:100]),
    "a byte short": ("truncated", lambda d: good(d).encode()[:-1]),
    "more keys claimed": ("truncated", misnamed),
    "a byte long": ("trailing", lambda d: good(d).encode() + b"\x00"),
    "another round inside": ("bad_request", lambda d: replace(good(d), ctx=secret("x")).encode()),
    "another shard inside": ("bad_request", lambda d: replace(good(d), shard=1).encode()),
    "no keys": ("cohort_too_small", lambda d: signed(d, b"")),
    "cohort minimum": ("cohort_too_small", lambda d: signed(d, good(d).keys[:64])),
    "cohort maximum": ("cohort_too_large", lambda d: ask_of(d, reports_of(d, range(101))).encode()),
    "zero key": ("bad_key", lambda d: with_key(d, bytes(32))),
    "small order": ("bad_key", lambda d: with_key(d, b"\x01" + bytes(31))),
    "not canonical": ("bad_key", lambda d: with_key(d, b"\xee" + b"\xff" * 30 + b"\x7f")),
    "top bit": ("bad_key", lambda d: with_key(d, b"\x09" + bytes(30) + b"\x80")),
    "falling": ("bad_set", unsorted),
    "repeated": ("bad_set", repeated),
    "no signature": ("bad_signature", lambda d: replace(good(d), signature=bytes(64)).encode()),
    "a stranger's": (
        "bad_signature",
        lambda d: ask_of(d, reports_of(d, range(5)), seed=secret("s")).encode(),
    ),
    "another sum": ("bad_signature", lambda d: replace(good(d), sum=secret("sum")).encode()),
    "another label": ("bad_signature", lambda d: resigned(d, "answer")),
}


@pytest.mark.parametrize("name", BAD_ASKS)
async def test_invalid_ask_is_refused_and_consumes_nothing(bench: Bench, name: str) -> None:
    """Each rule of section 6 refuses with its token and records nothing; a good ask works after."""
    token, build = BAD_ASKS[name]
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        before = bench.record()
        reply = await helper.ask(build(d), ctx=d.ctx)
        assert reply.token == token
        assert bench.record() == before
        assert (await helper.fetch(d.ctx)).token == "not_asked"
        await bench.answered(helper, good(d))


async def test_key_of_another_shard_is_refused(bench: Bench) -> None:
    """A key counts in the shard its hash names and in no other."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        before = bench.record()
        both = sorted(
            reports_of(d, range(20), 0) + reports_of(d, range(20), 1), key=lambda r: r.epk
        )
        assert (await helper.ask(ask_of(d, both, 0))).token == "wrong_shard"
        assert (await helper.ask(ask_of(d, both, 2))).token == "wrong_shard"
        assert (await helper.fetch(d.ctx, 2)).token == "wrong_shard"
        assert bench.record() == before


async def test_unknown_round(bench: Bench) -> None:
    """A ctx that this helper has not signed is nobody's round."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        stranger = replace(good(d), ctx=secret("elsewhere"))
        assert (await helper.ask(stranger)).token == "unknown_round"
        assert (await helper.fetch(stranger.ctx)).token == "unknown_round"


@pytest.mark.parametrize(
    "moment,token",
    [
        (T0, "not_closed"),
        (T0 + 99, "not_closed"),
        (T0 + 100, "202"),
        (T0 + 999, "202"),
        (T0 + 1_000, "expired"),
    ],
)
async def test_asks_are_judged_between_closes_and_expires(
    bench: Bench, moment: int, token: str
) -> None:
    """`closes` belongs to the time of asking, `expires` does not."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        before = bench.record()
        bench.time.now = moment
        assert (await helper.ask(good(d))).token == token
        await helper.computed()
        assert (bench.record() == before) is (token != "202")


async def test_rules_are_judged_in_their_order(bench: Bench) -> None:
    """An ask with several faults is refused for the first: time, cohort, keys, signature."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        rubbish = replace(good(d), signature=bytes(64))
        few = replace(rubbish, keys=bytes(64))
        zeros = replace(rubbish, keys=bytes(32 * 4))
        bench.time.now = d.closes - 1
        assert (await helper.ask(few)).token == "not_closed"
        closed(bench, d)
        assert (await helper.ask(few)).token == "cohort_too_small"
        assert (await helper.ask(zeros)).token == "bad_key"
        assert (await helper.ask(rubbish)).token == "bad_signature"


async def test_same_ask_again_gets_the_stored_bytes(bench: Bench) -> None:
    """However often it is asked, an answer is the same bytes and is charged once."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        first = await bench.answered(helper, good(d))
        before = bench.record()
        assert await bench.answered(helper, good(d)) == first
        assert bench.record() == before
    assert bench.entries() == [("reserve", 0), ("charge", 0)]


async def test_restarted_helper_returns_the_stored_bytes(bench: Bench) -> None:
    """A new process over the same state has the same answer, at once, and no root any more."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        first = await bench.answered(helper, good(d))
    async with bench.helper() as helper:
        assert (await helper.fetch(d.ctx)).body == first
        assert (await helper.ask(good(d))).status == 202
        assert (await helper.fetch(d.ctx)).body == first


async def test_same_ask_twice_at_once_joins_one_computation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent equal asks are summed once; another ask meanwhile finds the place taken."""
    sums = Gate(monkeypatch)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        replies = await asyncio.gather(*(helper.ask(good(d)) for _ in range(3)))
        assert [reply.status for reply in replies] == [202, 202, 202]
        other = ask_of(d, reports_of(d, range(6)))
        assert (await helper.ask(other)).token == "set_conflict"
        shopped = ask_of(d, reports_of(d, range(5)), y=bytes(d.payload_bytes))
        assert (await helper.ask(shopped)).token == "set_conflict"
        sums.open()
        await helper.computed()
        bench.time.steady += 1
        assert (await helper.fetch(d.ctx)).status == 200
        assert (await helper.ask(other)).token == "set_conflict"
    assert sums.passed == 1


async def test_same_set_with_another_sum_is_a_conflict(bench: Bench) -> None:
    """The sum is fixed with the set: a round has one result."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        await bench.answered(helper, good(d))
        shopped = ask_of(d, reports_of(d, range(5)), y=bytes(d.payload_bytes))
        assert shopped.set_digest == good(d).set_digest
        assert (await helper.ask(shopped)).token == "set_conflict"


async def test_failed_computation_consumes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the sum fails, the place is free again, for this set or another."""

    def broken(*_args: object, **_options: object) -> bytes:
        raise ValueError("an all-zero Diffie-Hellman result")

    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        before = bench.record()
        with monkeypatch.context() as patch:
            patch.setattr(oneshot, "answer_vector", broken)
            assert (await helper.ask(good(d))).status == 202
            await helper.computed()
        assert bench.record() == before
        assert (await helper.fetch(d.ctx)).token == "not_asked"
        await bench.answered(helper, ask_of(d, reports_of(d, range(6))))


async def test_round_that_expires_during_the_computation_is_not_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `expires` on nothing is stored, though the ask came in time."""
    sums = Gate(monkeypatch)
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        assert (await helper.ask(good(d))).status == 202
        bench.time.now = d.expires
        sums.open()
        await helper.computed()
        assert (await helper.fetch(d.ctx)).token == "not_asked"
    assert bench.entries() == [("reserve", 0)]


class Gate:
    """Holds every mask sum up until it is opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = threading.Event()
        self.passed = 0
        original = oneshot.answer_vector

        def waiting(*args: object, **options: object) -> bytes:
            assert self._opened.wait(60)
            self.passed += 1
            return original(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(oneshot, "answer_vector", waiting)

    def open(self) -> None:
        """Lets sums pass."""
        self._opened.set()


async def seconds_until_visible(bench: Bench, sums: Gate, takes_s: float) -> float:
    """When the answer to an ask at 0 can first be fetched, if it is durable after `takes_s`."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        bench.time.steady = 0.0
        assert (await helper.ask(good(d))).headers["Retry-After"] == "1"
        bench.time.steady = takes_s
        assert (await helper.fetch(d.ctx)).status == 202
        sums.open()
        await helper.computed()
        for quarter in range(40):
            bench.time.steady = max(takes_s, quarter / 4)
            if (await helper.fetch(d.ctx)).status == 200:
                return bench.time.steady
    raise AssertionError("never visible")


@pytest.mark.parametrize("takes_s,visible_s", [(0.0, 1.0), (0.3, 1.0), (0.9, 1.0), (2.3, 3.0)])
async def test_answer_is_visible_at_whole_multiples_of_the_delay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, takes_s: float, visible_s: float
) -> None:
    """Computations of 0.3 and of 0.9 seconds look the same from outside."""
    assert await seconds_until_visible(bench, Gate(monkeypatch), takes_s) == visible_s


@pytest.mark.parametrize("takes_s", [0.3, 0.9])
async def test_control_without_the_delay_the_sampling_time_shows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, takes_s: float
) -> None:
    """With the defence off the asker reads the time of the computation."""
    durable = lambda self, place: self._in_flight[place].visible_at is not None  # noqa: E731
    monkeypatch.setattr(Answers, "_is_visible", durable)
    assert await seconds_until_visible(bench, Gate(monkeypatch), takes_s) == takes_s


async def noise_in(bench: Bench, name: str, ask: Ask, d: Descriptor, root: bytes) -> bytes:
    """The noise of an answer given over a copy of the state: masks minus R."""
    copied = bench.copy(name)
    async with bench.helper(copied) as helper:
        answer = answer_in(await bench.answered(helper, ask), d)
    scalar, _ = oneshot.round_keys(root)
    party = d.party_of(bench.identity)
    masks = kernel.mask_sum(d.suite, d.width, d.slots, d.ctx, party, scalar, ask.keys)
    return kernel.sub_payloads(masks, [answer.r], 0, d.width)


async def test_noise_is_one_per_set(bench: Bench) -> None:
    """The same ask always has the same noise; another set has noise of its own."""
    async with bench.helper() as helper:
        d = await helper.signed_round(slots=64, l2sq=10_000)
    closed(bench, d)
    (path,) = bench.roots.iterdir()
    root = path.read_bytes()
    first = await noise_in(bench, "one", good(d), d, root)
    again = await noise_in(bench, "two", good(d), d, root)
    other = await noise_in(bench, "three", ask_of(d, reports_of(d, range(6))), d, root)
    assert first == again
    values = [np.frombuffer(kernel.unpack(n, d.width), "<i8") for n in (first, other)]
    assert np.count_nonzero(values[0] == values[1]) < 4
    # Independent, hence not the negation either: neither sum nor difference is small.
    assert all(np.abs(values[0] + s * values[1]).mean() > 100 for s in (1, -1))


async def test_sum_in_the_answer_is_the_one_asked_for(bench: Bench) -> None:
    """The answer signs SHA-256(Y) of the ask."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        reports = reports_of(d, range(5))
        answer = answer_in(await bench.answered(helper, ask_of(d, reports)), d)
    assert answer.sum == hashlib.sha256(sum_of(d, reports)).digest()
    answer.verify(bench.identity)
