"""What masks do: cancel exactly, hide each report, and stay apart (section 4.3)."""

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dandelion import kernel
from tests import oracle

SUITES = (kernel.SUITE_X25519_CHACHA20, kernel.SUITE_X25519_AES256CTR)
CTX = bytes(range(32, 64))

every_suite = pytest.mark.parametrize("suite", SUITES)
every_width = pytest.mark.parametrize("width", kernel.WIDTHS)


def secret(number: int) -> bytes:
    return number.to_bytes(32, "big")


def mask_keys(helpers: list[bytes]) -> bytes:
    return b"".join(kernel.x25519_public(helper) for helper in helpers)


def sum_of_round(
    suite: int, width: int, helpers: list[bytes], reports: list[oracle.Values]
) -> oracle.Values:
    """Masks all reports, unmasks their sum and returns it."""
    slots = len(reports[0])
    masked = [
        kernel.mask(suite, width, CTX, secret(1000 + client), mask_keys(helpers), values)
        for client, values in enumerate(reports)
    ]
    total = kernel.add_payloads(
        bytes(slots * width // 8), [payload for _, payload in masked], 0, width
    )
    epks = b"".join(sorted(epk for epk, _ in masked))
    shares = [
        kernel.mask_sum(suite, width, slots, CTX, party, helper, epks)
        for party, helper in enumerate(helpers, start=1)
    ]
    return lifted(kernel.sub_payloads(total, shares, 0, width), width)


def lifted(payload: bytes, width: int) -> oracle.Values:
    return np.frombuffer(kernel.unpack(payload, width), "<i8")


@every_suite
@every_width
@pytest.mark.parametrize("parties", [2, 3])
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_masks_cancel_exactly(suite: int, width: int, parties: int, data: st.DataObject) -> None:
    """What the clients put in comes out, whatever the values, as long as the sum fits."""
    bound = 2 ** (width - 1) // 4 - 1
    slots = data.draw(st.integers(1, 8))
    vector = st.lists(st.integers(-bound, bound), min_size=slots, max_size=slots)
    reports = [
        np.array(values, dtype=np.int64)
        for values in data.draw(st.lists(vector, min_size=1, max_size=4))
    ]
    helpers = [secret(party) for party in range(1, parties + 1)]
    total = sum_of_round(suite, width, helpers, reports)
    assert total.tolist() == np.sum(reports, axis=0).tolist()


@every_width
def test_a_sum_past_the_width_wraps(width: int) -> None:
    """The control of the last sentence: one beyond the largest value is the smallest."""
    highest = 2 ** (width - 1) - 1
    total = sum_of_round(
        SUITES[0], width, [secret(1), secret(2)], [np.array([highest]), np.array([1])]
    )
    assert total.tolist() == [-highest - 1]


@every_suite
@every_width
def test_the_sum_does_not_depend_on_threads(suite: int, width: int) -> None:
    """One, two or all cores give the same bytes, for lists that fill no whole batch."""
    epks = b"".join(kernel.x25519_public(secret(client)) for client in range(1, 301))
    one, *others = (
        kernel.mask_sum(suite, width, 50, CTX, 1, secret(7), epks, threads=threads)
        for threads in (1, 2, 7, 0)
    )
    assert others == [one] * 3


@pytest.fixture
def lock_is_never_asked_for() -> Iterator[None]:
    """Threads change only where one gives the interpreter lock away of its own accord."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(interval)


def another_thread_ran_during(call: Callable[[], object]) -> bool:
    ran: list[bool] = []
    gate = threading.Lock()
    gate.acquire()

    def other() -> None:
        with gate:
            ran.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    gate.release()
    call()
    seen = bool(ran)
    thread.join()
    return seen


@pytest.mark.usefixtures("lock_is_never_asked_for")
def test_other_threads_run_while_a_sum_is_made() -> None:
    """A sum gives the interpreter lock away; a single multiplication, the control, keeps it."""
    epks = kernel.x25519_public(secret(1)) * 4000
    assert another_thread_ran_during(
        lambda: kernel.mask_sum(SUITES[0], 32, 100, CTX, 1, secret(7), epks, threads=1)
    )
    assert not another_thread_ran_during(lambda: kernel.x25519_public(secret(1)))


def test_attack_copied_mask_key() -> None:
    """A helper that publishes another's mask key as its own learns nothing from the low bits."""
    values = np.arange(200) % 2
    copied = mask_keys([secret(1)]) * 2
    _, payload = kernel.mask(SUITES[0], 32, CTX, secret(9), copied, values)
    agreeing = np.mean(lifted(payload, 32) % 2 == values)
    assert 0.3 < agreeing < 0.7


def test_attack_copied_mask_key_without_party_index() -> None:
    """The control: with one seed for both parties every low bit is the client's own."""
    values = np.arange(200) % 2
    pk = kernel.x25519_public(secret(1))
    epk = kernel.x25519_public(secret(9))
    shared = kernel.shared_secret(secret(9), pk, epk, pk)
    seed = kernel.expand(shared, "mask", CTX, 32)
    added = oracle.mask_words(SUITES[0], 32, seed, 200)
    masked = (values + 2 * np.array(added)) % 2**32
    assert (masked % 2 == values).all()


@every_width
def test_another_round_party_or_suite_is_another_mask(width: int) -> None:
    """Suite, context, party and key each change the whole mask."""
    zeros, keys = np.zeros(64, dtype=np.int64), mask_keys([secret(1)])
    epk, payload = kernel.mask(SUITES[0], width, CTX, secret(9), keys, zeros)
    others = [
        kernel.mask(SUITES[1], width, CTX, secret(9), keys, zeros)[1],
        kernel.mask(SUITES[0], width, CTX[::-1], secret(9), keys, zeros)[1],
        kernel.mask(SUITES[0], width, CTX, secret(8), keys, zeros)[1],
        kernel.mask_sum(SUITES[0], width, 64, CTX, 2, secret(1), epk),
    ]
    for other in others:
        assert np.mean(lifted(other, width) == lifted(payload, width)) < 0.1


def test_a_full_vector_is_masked() -> None:
    """2^20 slots are the most, and they all get a mask."""
    slots = 2**20
    values = np.zeros(slots, dtype=np.int64)
    epk, payload = kernel.mask(SUITES[1], 64, CTX, secret(9), mask_keys([secret(1)]), values)
    assert payload == kernel.mask_sum(SUITES[1], 64, slots, CTX, 1, secret(1), epk)
    assert np.count_nonzero(lifted(payload, 64)) == slots
