"""The `oneshot` scheme: one masked POST, helpers that answer once (docs/protocol.md sections 4 to
8).

Why the collector learns only the sum: each report is hidden by one mask per helper, and a helper
shows its masks only added up over the whole set, once, with noise inside. One honest helper
suffices.

Mirror images: `mask` and `unmask`, `fold` and `unfold`. Leaves out: keeping roots, answering
once, time (the services), and whether a client should take part (the client).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.encoding import u16
from dandelion.errors import RuleError, WireError
from dandelion.messages import Report
from dandelion.params import KEY_BYTES, REPORT_HEADER_BYTES, SEED_BYTES

Vector = npt.NDArray[np.int64]


class EphemeralKey:
    """An X25519 secret for exactly one report (section 4.3).

    Masking two vectors under one key reveals their difference, so the first use takes the secret
    away.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError("an ephemeral secret has 32 bytes")
        self._secret: bytes | None = secret

    def __repr__(self) -> str:
        return "EphemeralKey(consumed)" if self._secret is None else "EphemeralKey(unused)"

    def consume(self) -> bytes:
        """The secret, once.

        Raises:
            RuleError: `key_consumed` from the second call on.
        """
        secret, self._secret = self._secret, None
        if secret is None:
            raise RuleError("key_consumed")
        return secret


def gate(descriptor: Descriptor, values: Vector) -> bool:
    """The last gate (section 14, step 5): whether `values` obeys linf and l2sq, in exact integers.

    `values` is an int64 vector of shape (slots,). Python integers are used where int64 could
    overflow.
    """
    if values.shape != (descriptor.slots,) or values.dtype != np.int64:
        return False
    used: list[int] = values[values != 0].tolist()
    if any(abs(value) > descriptor.linf for value in used):
        return False
    return sum(value * value for value in used) <= descriptor.l2sq


def mask(descriptor: Descriptor, values: Vector, key: EphemeralKey) -> Report:
    """Masks a vector of shape (slots,) towards every helper and consumes the key (section 4.3).

    Raises:
        RuleError: `key_consumed`.
        ValueError: the vector has another shape or type.
    """
    if values.shape != (descriptor.slots,) or values.dtype != np.int64:
        raise ValueError("values must be int64 of shape (slots,)")
    mask_keys = b"".join(helper.mask_key for helper in descriptor.helpers)
    epk, payload = kernel.mask(
        descriptor.suite,
        descriptor.width,
        descriptor.ctx,
        key.consume(),
        mask_keys,
        np.ascontiguousarray(values),
    )
    return Report(descriptor.round_id, epk, payload)


def round_keys(root: bytes) -> tuple[bytes, bytes]:
    """Mask key pair (secret, public), 32 bytes each, of a 32-byte round root (section 4.1)."""
    if len(root) != SEED_BYTES:
        raise ValueError("a round root has 32 bytes")
    secret = kernel.expand(root, "mask-key", b"", KEY_BYTES)
    return secret, kernel.x25519_public(secret)


def check_keys(descriptor: Descriptor, shard: int, keys: bytes) -> None:
    """Judges the keys of an ask, n * 32 bytes (section 6, steps 3 and 4).

    Raises:
        RuleError: `cohort_too_small`, `cohort_too_large`.
        WireError: `bad_key`, `bad_set`, `wrong_shard`.
    """
    n, odd = divmod(len(keys), KEY_BYTES)
    if odd:
        raise WireError("truncated")
    if n < descriptor.cohort_min:
        raise RuleError("cohort_too_small", f"{n} of at least {descriptor.cohort_min}")
    if n > descriptor.cohort_max:
        raise RuleError("cohort_too_large", f"{n} of at most {descriptor.cohort_max}")
    if kernel.first_unacceptable(keys) is not None:
        raise WireError("bad_key", "a report key")
    if kernel.first_not_ascending(keys) is not None:
        raise WireError("bad_set")
    if not 0 <= shard < descriptor.shards:
        raise WireError("wrong_shard", "no such shard")
    if not descriptor.all_of_shard(shard, keys):
        raise WireError("wrong_shard", "a key of another shard")


def noise(descriptor: Descriptor, root: bytes, shard: int, set_digest: bytes) -> Vector:
    """A helper's noise for one set, shape (slots,), int64: the same for the same set, for ever
    (section 7).
    """
    info = descriptor.ctx + u16(shard) + set_digest
    seed = kernel.expand(root, "noise", info, SEED_BYTES)
    drawn = kernel.discrete_gaussian(descriptor.suite, seed, descriptor.noise_var, descriptor.slots)
    return np.frombuffer(drawn, dtype="<i8")


def answer_vector(
    descriptor: Descriptor,
    party: int,
    root: bytes,
    shard: int,
    set_digest: bytes,
    keys: bytes,
    *,
    threads: int = 0,
) -> bytes:
    """R of section 6: helper `party`'s masks over `keys` minus its noise, packed.

    The caller has judged the keys. Uses all cores unless `threads` says otherwise; holds no lock
    meanwhile.
    """
    secret, _ = round_keys(root)
    masks = kernel.mask_sum(
        descriptor.suite,
        descriptor.width,
        descriptor.slots,
        descriptor.ctx,
        party,
        secret,
        keys,
        threads,
    )
    packed_noise = kernel.pack(noise(descriptor, root, shard, set_digest), descriptor.width)
    return kernel.sub_payloads(masks, [packed_noise], 0, descriptor.width)


def zero(descriptor: Descriptor) -> bytes:
    """The packed zero vector: where a sum starts."""
    return bytes(descriptor.payload_bytes)


def fold(descriptor: Descriptor, total: bytes, bodies: Sequence[bytes]) -> bytes:
    """`total` plus the payloads of encoded reports, packed."""
    return kernel.add_payloads(total, list(bodies), REPORT_HEADER_BYTES, descriptor.width)


def unfold(descriptor: Descriptor, total: bytes, bodies: Sequence[bytes]) -> bytes:
    """`total` minus the payloads of encoded reports, packed."""
    return kernel.sub_payloads(total, list(bodies), REPORT_HEADER_BYTES, descriptor.width)


def add_sums(descriptor: Descriptor, sums: Sequence[bytes]) -> bytes:
    """The packed sum of packed sums."""
    return kernel.add_payloads(zero(descriptor), list(sums), 0, descriptor.width)


def unmask(descriptor: Descriptor, y: bytes, rs: Sequence[bytes], n: int) -> Vector:
    """The released vector, shape (slots,): Y - sum of all R, lifted (sections 6 and 8).

    Raises:
        WireError: `implausible` if a value lies where no set of n reports and this noise can put
            it: set and sum disagree, and the value would be uniformly random.
    """
    packed = kernel.sub_payloads(y, list(rs), 0, descriptor.width)
    values = np.frombuffer(kernel.unpack(packed, descriptor.width), dtype="<i8")
    bound = n * descriptor.linf + descriptor.noise_bound
    # Compared as Python integers: the bound may exceed int64, and abs() of its least value
    # overflows.
    if int(values.max()) > bound or int(values.min()) < -bound:
        raise WireError("implausible")
    return values
