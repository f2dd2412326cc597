"""A release can be checked offline, and any flipped bit makes it fail (docs/protocol.md 8)."""

from dataclasses import replace

import numpy as np
import pytest

from dandelion.errors import WireError
from dandelion.messages import Release
from dandelion.vectors.inputs import (
    COLLECTOR,
    PLAN,
    descriptors,
    known_answer_descriptor,
    seed,
)
from dandelion.vectors.message_inputs import release_of
from dandelion.verify import verify_release

DESCRIPTOR = replace(known_answer_descriptor(), plan=PLAN, linf=10, l2sq=150, noise_var=500)
RELEASE = release_of(DESCRIPTOR, range(1, 6)).encode()


def test_a_good_release_gives_its_sum_within_the_noise() -> None:
    """The sums are those of the clients plus noise of the stated size."""
    checked = verify_release(RELEASE)
    truth = np.array([1 + 10 + 3 + 4 + 5, 2 - 3 - 4 - 5, 3, -5 + 7 + 3])
    assert checked.n == 5
    assert np.all(np.abs(checked.sums - truth) <= DESCRIPTOR.noise_bound)
    assert checked.epsilon == 8


def test_any_flipped_bit_makes_it_fail_and_says_where() -> None:
    """Every bit of the artefact is covered by something that is checked."""
    for bit in range(8 * len(RELEASE)):
        changed = bytearray(RELEASE)
        changed[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(WireError) as caught:
            verify_release(bytes(changed))
        assert caught.value.token
    with pytest.raises(WireError, match="release signature of the collector"):
        verify_release(RELEASE[:-1] + bytes([RELEASE[-1] ^ 1]))


def test_pinned_identities_are_compared() -> None:
    """A release that is sound in itself but from other parties is refused."""
    helpers = tuple(entry.identity for entry in DESCRIPTOR.helpers)
    verify_release(RELEASE, collector=DESCRIPTOR.collector, helpers=helpers[::-1])
    with pytest.raises(WireError, match="collector is not the expected one"):
        verify_release(RELEASE, collector=seed("other"))
    with pytest.raises(WireError, match="helpers are not the expected ones"):
        verify_release(RELEASE, helpers=helpers[:1])


def test_a_result_cannot_be_swapped_after_the_answers() -> None:
    """Result shopping: another Y under the same answers fails at every helper.

    The control: without the sum in the helpers' statement the collector's own signature would be
    all that binds Y, and the collector can make that itself.
    """
    release = release_of(DESCRIPTOR, range(1, 6))
    shard = release.shards[0]
    y = bytes([shard.y[0] ^ 1]) + shard.y[1:]
    forged = Release.create(
        release.descriptor, release.signatures, (replace(shard, y=y),), COLLECTOR
    )
    forged.verify(DESCRIPTOR.collector)  # the control: the collector's statement alone holds
    with pytest.raises(WireError, match="answer signature of helper 1"):
        verify_release(forged.encode())


@pytest.mark.parametrize(
    "name", ["AES-256-CTR", "width 16", "width 24", "width 64", "three helpers"]
)
def test_every_suite_and_width_decodes(name: str) -> None:
    """Whatever the word width, suite and number of helpers, the sum comes out."""
    descriptor = replace(descriptors()[name], plan=PLAN, l2sq=descriptors()[name].linf ** 2)
    descriptor = replace(descriptor, noise_var=max(descriptor.noise_var, descriptor.l2sq))
    if name == "width 16":
        descriptor = replace(descriptor, cohort_max=100)
    checked = verify_release(release_of(descriptor, range(1, 6)).encode())
    assert abs(int(checked.sums[2]) - 3) <= descriptor.noise_bound
