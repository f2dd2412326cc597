"""Report, ask, answer: exact bytes, exact errors (docs/protocol.md sections 5 and 6)."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from dandelion.encoding import label, sign, verify
from dandelion.errors import RuleError, WireError
from dandelion.messages import Answer, Ask, Report
from dandelion.schemes import oneshot
from dandelion.vectors.inputs import COLLECTOR, known_answer_descriptor, seed

KNOWN = known_answer_descriptor()


def report(client: int, values: tuple[int, ...]) -> Report:
    """The report of a known-answer client."""
    key = oneshot.EphemeralKey(seed(f"kat client {client}"))
    return oneshot.mask(KNOWN, np.array(values, dtype=np.int64), key)


FIRST, SECOND = report(1, (1, 2, 3, -5)), report(2, (10, 0, 0, 7))
KEYS = b"".join(sorted((FIRST.epk, SECOND.epk)))
Y = oneshot.fold(KNOWN, oneshot.zero(KNOWN), [FIRST.encode(), SECOND.encode()])


def test_known_answers() -> None:
    """Report 1, set and sum are the published values."""
    assert FIRST.encode().hex() == (
        "018fbe850e56ba1603ee53eaca86e6f7c0214ee0fff6e8b684e3569d4704f4d402e4b737452dc2f433bf3717"
        "626c3ff165aaab1b589c1e9a4837c248bead865d51"
    )
    ask = Ask.create(KNOWN.ctx, 0, KEYS, Y, COLLECTOR)
    assert ask.set_digest.hex() == (
        "d0ff910724a87eb75896d1a4045286b4a0c856d88c753c5bd4587c3e29bb420a"
    )
    assert ask.sum.hex() == "5b123376134095ae11a7472628ea591030a542b0879b2b4bcfb14dae38c21a24"


@given(st.binary(min_size=60, max_size=70))
def test_report_decode_is_total(body: bytes) -> None:
    """Any body is refused with a token or encodes back to itself."""
    try:
        assert Report.decode(body, KNOWN.round_id, KNOWN.report_bytes).encode() == body
    except WireError as error:
        if error.token not in {"bad_length", "bad_version", "wrong_round", "bad_key"}:
            raise


@given(st.integers(0, 64), st.integers(1, 255))
def test_a_changed_report_is_another_report_or_refused(at: int, flip: int) -> None:
    """Header changes are refused or give another key; payload changes are another payload."""
    body = bytearray(FIRST.encode())
    body[at] ^= flip
    try:
        changed = Report.decode(bytes(body), KNOWN.round_id, KNOWN.report_bytes)
    except WireError:
        return
    assert changed != FIRST
    assert at >= 17


def test_ask_round_trip_and_count() -> None:
    """The count is that of the keys present, whatever the message claims."""
    ask = Ask.create(KNOWN.ctx, 0, KEYS, Y, COLLECTOR)
    assert Ask.decode(ask.encode()) == ask
    assert ask.n == 2
    claims_three = bytearray(ask.encode())
    claims_three[1 + 32 + 2 + 3] = 3
    with pytest.raises(WireError, match="truncated"):
        Ask.decode(bytes(claims_three))


def test_an_answer_for_another_ask_is_refused() -> None:
    """An answer is bound to ctx, party, shard, count, set and sum."""
    ask = Ask.create(KNOWN.ctx, 0, KEYS, Y, COLLECTOR)
    answer = Answer.create(ask, 1, bytes(16), seed("kat identity 1"))
    other = Ask.create(KNOWN.ctx, 0, KEYS, bytes(16), COLLECTOR)
    with pytest.raises(WireError, match="bad_answer"):
        answer.check(other, 1, KNOWN.helpers[0].identity)
    with pytest.raises(WireError, match="bad_answer"):
        answer.check(ask, 2, KNOWN.helpers[0].identity)


def test_statements_carry_their_label() -> None:
    """A signature under one label is none under another; without labels it would be.

    The control: over bare bodies the same signature serves both statements.
    """
    body = hashlib.sha256(b"").digest()
    signature = sign(COLLECTOR, "release", body)
    verify(KNOWN.collector, "release", body, signature)
    with pytest.raises(WireError, match="bad_signature"):
        verify(KNOWN.collector, "descriptor", body, signature)
    assert label("release") != label("descriptor")
    unlabelled = SigningKey(COLLECTOR).sign(body).signature
    SigningKey(COLLECTOR).verify_key.verify(body, unlabelled)  # read as either statement


def test_check_keys_orders_its_refusals() -> None:
    """Count before keys, keys before order (section 6, steps 3 and 4)."""
    bad = bytes(32)
    with pytest.raises(RuleError, match="cohort_too_small"):
        oneshot.check_keys(KNOWN, 0, bad)
    with pytest.raises(WireError, match="bad_key"):
        oneshot.check_keys(KNOWN, 0, KEYS[32:] + bad)
    with pytest.raises(WireError, match="bad_set"):
        oneshot.check_keys(KNOWN, 0, KEYS[32:] + KEYS[:32])
    oneshot.check_keys(KNOWN, 0, KEYS)
