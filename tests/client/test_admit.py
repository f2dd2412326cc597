"""Which rounds a client answers: pins, floors, and a plan that keeps its word.

Every attack is run against a client that would otherwise send; each has a control in which the
defence is off and the report goes out.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from client_py import admit as admit_module
from client_py.admit import RoundCache, admit, check_pins
from client_py.config import PinnedConfig, Policy
from client_py.receipts import Outcome
from dandelion.descriptor import Descriptor, Envelope
from dandelion.errors import RuleError, WireError
from tests.client.builders import (
    NOW,
    SQL,
    Deployment,
    FakeTransport,
    Party,
    make_client,
    seed,
)

GOOD = Deployment()
EVIL = Party("evil")
LAX = Policy(cohort_min=1, epsilon_round=1e3, epsilon_period=1e6, lifetime_max_s=10**9)


def off(*args: object) -> None:
    """A defence that is switched off."""


async def attempt(
    envelope: bytes, policy: Policy | None = None, config: PinnedConfig | None = None
) -> tuple[str, int]:
    """Token of the only receipt, and how many reports were sent."""
    transport = FakeTransport()
    client = make_client(transport, policy=policy, config=config)
    (receipt,) = await client.contribute([envelope])
    assert (receipt.outcome is Outcome.REFUSED) == (not transport.bodies)
    return receipt.token, len(transport.bodies)


def other_suite() -> bytes:
    return GOOD.round(suite=2)


def other_collector() -> bytes:
    return replace(GOOD, collector_seed=seed("evil collector")).round()


def other_helper() -> bytes:
    return replace(GOOD, helpers=(GOOD.helpers[0], EVIL)).round()


def one_more_helper() -> bytes:
    return replace(GOOD, helpers=(*GOOD.helpers, EVIL)).round()


PINS: dict[str, Callable[[], bytes]] = {
    "suite": other_suite,
    "collector": other_collector,
    "helpers": other_helper,
    "number of helpers": one_more_helper,
}


async def test_the_pinned_round_is_answered() -> None:
    """The control of all that follows: this client sends."""
    assert await attempt(GOOD.round()) == ("", 1)


@pytest.mark.parametrize("item", PINS)
async def test_a_deployment_that_differs_in_one_item_gets_nothing(item: str) -> None:
    """Everything is signed by those it names; it is just not what was pinned."""
    config = replace(GOOD.config(), suites=(1,))
    envelope = PINS[item]()
    assert await attempt(envelope, config=config) == ("pin_mismatch", 0)
    with pytest.raises(RuleError) as caught:
        admit(envelope, config, Policy())
    assert caught.value.detail == item


@pytest.mark.parametrize("item", PINS)
async def test_without_pins_that_deployment_would_be_answered(
    item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the pins off, the same envelope gets a report."""
    monkeypatch.setattr(admit_module, "check_pins", off)
    assert await attempt(PINS[item](), config=replace(GOOD.config(), suites=(1,))) == ("", 1)


def test_the_scheme_is_pinned_too() -> None:
    """Schemes 2 and 3 do not decode in this version; once they do, the pin is there already."""
    config = GOOD.config()
    object.__setattr__(config, "scheme", 3)
    with pytest.raises(RuleError, match="scheme"):
        check_pins(GOOD.descriptor(), config)


async def test_another_scheme_gets_nothing() -> None:
    """A round without noise cannot even be described."""
    envelope = bytearray(GOOD.round())
    envelope[4 + 10] = 3
    assert await attempt(bytes(envelope)) == ("bad_scheme", 0)


def swapped_mask_key(descriptor: Descriptor, envelope: bytes) -> bytes:
    """Helper 1's key replaced by one of the collector's own making."""
    mine, theirs = EVIL.entry(1).mask_key, descriptor.helpers[0].mask_key
    assert envelope.count(theirs) == 1
    return envelope.replace(theirs, mine)


async def test_a_swapped_helper_key_gets_nothing() -> None:
    """The signatures are over ctx, and ctx covers every key."""
    envelope = swapped_mask_key(GOOD.descriptor(), GOOD.round())
    assert await attempt(envelope) == ("bad_signature", 0)


async def test_without_signatures_a_swapped_key_would_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: with verification off, the report is masked towards the collector's own key."""
    monkeypatch.setattr("dandelion.descriptor.verify", off)
    assert await attempt(swapped_mask_key(GOOD.descriptor(), GOOD.round())) == ("", 1)


async def test_every_signature_counts() -> None:
    """Flipping one bit of any of them is enough."""
    envelope = GOOD.round()
    for index in range(3):
        broken = bytearray(envelope)
        broken[-64 * index - 40] ^= 1
        assert await attempt(bytes(broken)) == ("bad_signature", 0)


async def test_lowered_noise_gets_nothing() -> None:
    """A quarter of the variance doubles the price of the round: below the floor."""
    noise_var = GOOD.descriptor().noise_var // 4
    assert await attempt(GOOD.round(noise_var=noise_var)) == ("floor_noise", 0)


async def test_lowered_noise_is_a_lie_even_to_a_client_without_a_floor() -> None:
    """The plan states epsilon 1, the noise gives more: not a plan this client believes."""
    noise_var = GOOD.descriptor().noise_var // 4
    assert await attempt(GOOD.round(noise_var=noise_var), policy=LAX) == ("bad_plan", 0)


async def test_without_floors_lowered_noise_would_be_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: with the floor and the comparison of epsilons off, the report goes out."""
    envelope = GOOD.round(noise_var=GOOD.descriptor().noise_var // 4)
    monkeypatch.setattr(admit_module, "check_floors", off)
    monkeypatch.setattr(admit_module, "_EPSILON_SLACK", 1e9)
    assert await attempt(envelope) == ("", 1)


FLOORS: dict[str, dict[str, int]] = {
    "floor_cohort": {"cohort_min": 999},
    "floor_time": {"expires": NOW + 8 * 86_400},
}


@pytest.mark.parametrize("token", FLOORS)
async def test_a_round_below_a_floor_gets_nothing(token: str) -> None:
    """A cohort too small, a life too long."""
    assert await attempt(GOOD.round(**FLOORS[token])) == (token, 0)


@pytest.mark.parametrize("token", FLOORS)
async def test_a_lower_floor_lets_that_round_pass(token: str) -> None:
    """The control: the same round under a policy that allows it."""
    assert await attempt(GOOD.round(**FLOORS[token]), policy=LAX) == ("", 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": b'{"kind":"program"}'},
        {"slots": 47},
        {"slots": 49},
        {"linf": 179},
        {"l2sq": 97_199},
    ],
)
async def test_a_plan_that_does_not_fit_its_descriptor_gets_nothing(
    changes: dict[str, object],
) -> None:
    """Unknown, of another length, or able to exceed the bounds that the noise was made for."""
    noisy = GOOD.descriptor(noise_var=2 * GOOD.descriptor().noise_var)
    envelope = GOOD.envelope(replace(noisy, **changes))  # type: ignore[arg-type]
    assert await attempt(envelope) == ("bad_plan", 0)


async def test_bounds_wider_than_the_plan_needs_are_fine() -> None:
    """The control: the noise is made for more than the plan can do."""
    noise_var = 2 * GOOD.descriptor().noise_var
    assert await attempt(GOOD.round(noise_var=noise_var, l2sq=97_300)) == ("", 1)


@pytest.mark.parametrize(
    "envelope", [b"", b"\x00" * 4, b"\xff" * 300, GOOD.round()[:-1], GOOD.round() + b"\x00"]
)
async def test_bytes_that_are_no_envelope_get_nothing(envelope: bytes) -> None:
    """They end as a refusal, not as an exception."""
    token, sent = await attempt(envelope)
    assert token in ("truncated", "trailing", "bad_magic", "bad_signature", "too_large")
    assert sent == 0


def test_a_verdict_is_remembered_for_these_bytes_pins_and_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A simulation verifies an envelope once; another policy or other bytes are judged anew."""
    judged = 0

    def counting(envelope: bytes, config: PinnedConfig, policy: Policy) -> object:
        nonlocal judged
        judged += 1
        return admit(envelope, config, policy)

    monkeypatch.setattr(admit_module, "admit", counting)
    cache, config = RoundCache(), GOOD.config()
    for _ in range(3):
        assert cache.admit(GOOD.round(), config, Policy()).descriptor == GOOD.descriptor()
    assert judged == 1
    cache.admit(GOOD.round(), config, LAX)
    cache.admit(GOOD.round(2), config, Policy())
    assert judged == 3


def test_a_refusal_is_remembered_as_well() -> None:
    """With its token, and as the same kind of error."""
    cache, config = RoundCache(), GOOD.config()
    for _ in range(2):
        with pytest.raises(WireError) as wire:
            cache.admit(b"", config, Policy())
        assert wire.value.token == "truncated"
        with pytest.raises(RuleError) as rule:
            cache.admit(GOOD.round(cohort_min=1), config, Policy())
        assert rule.value.token == "floor_cohort"


def test_an_admitted_round_explains_itself() -> None:
    """The words are those of the plan that was checked."""
    admitted = admit(GOOD.round(), GOOD.config(), Policy())
    assert SQL in admitted.explanation
    assert "2 independent helpers" in admitted.explanation
    assert Envelope.decode(GOOD.round()).descriptor == admitted.descriptor
