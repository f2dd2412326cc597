"""Offline check of a release from its published bytes alone (docs/protocol.md section 8).

What it cannot check: that reports were honest, and that none was left out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dandelion.encoding import Json, verify
from dandelion.errors import DandelionError, WireError
from dandelion.messages import Release
from dandelion.privacy import accounting
from dandelion.queries.parser import decimal
from dandelion.schemes import oneshot

# Stated and computed epsilon are compared as decimal texts of a few digits would be.
_EPSILON_SLACK: Final = 1e-9


@dataclass(frozen=True)
class VerifiedRelease:
    """A release whose every check passed. `sums` is int64 of shape (slots,), all shards added."""

    release: Release
    sums: oneshot.Vector
    n: int
    epsilon: float
    delta: float


def verify_release(
    data: bytes, *, collector: bytes | None = None, helpers: tuple[bytes, ...] | None = None
) -> VerifiedRelease:
    """Checks everything section 8 lists, in its order.

    Args:
        data: the artefact.
        collector: the Ed25519 identity to expect; None accepts the one named inside.
        helpers: the exact identities to expect, in any order; None accepts those named inside.

    Raises:
        WireError: the first check that fails; `detail` says which.
    """
    release = Release.decode(data)
    d = release.descriptor
    signers = [("the collector", d.collector)]
    signers += [
        (f"helper {party}", entry.identity) for party, entry in enumerate(d.helpers, start=1)
    ]
    for (name, identity), signature in zip(signers, release.signatures, strict=True):
        with _naming(f"descriptor signature of {name}"):
            verify(identity, "descriptor", d.ctx, signature)
    if collector is not None and collector != d.collector:
        raise WireError("bad_release", "the collector is not the expected one")
    if helpers is not None and sorted(helpers) != [entry.identity for entry in d.helpers]:
        raise WireError("bad_release", "the helpers are not the expected ones")
    with _naming("release signature of the collector"):
        release.verify(d.collector)
    sums = np.zeros(d.slots, dtype=np.int64)
    for shard in release.shards:
        where = f"of shard {shard.shard}"
        if not d.cohort_min <= shard.n <= d.cohort_max:
            raise WireError("bad_release", f"number of reports {where}")
        for party, entry in enumerate(d.helpers, start=1):
            with _naming(f"answer signature of helper {party} {where}"):
                shard.answer_of(d.ctx, party).verify(entry.identity)
        with _naming(f"released values {where}"):
            sums += oneshot.unmask(d, shard.y, [r for r, _ in shard.answers], shard.n)
    epsilon, delta = _promise(release)
    return VerifiedRelease(release, sums, sum(shard.n for shard in release.shards), epsilon, delta)


def _promise(release: Release) -> tuple[float, float]:
    """The stated (epsilon, delta), checked against the bounds and the noise (section 16)."""
    plan = release.descriptor.plan_object()
    try:
        stated, delta = (_decimal(plan[name]) for name in ("epsilon", "delta"))
        real = accounting.epsilon(release.descriptor.rho_units, delta)
    except (KeyError, ValueError):
        raise WireError("bad_release", "the plan states no epsilon and delta") from None
    if not real <= stated + _EPSILON_SLACK:
        raise WireError("bad_release", "the noise does not give the stated epsilon")
    return stated, delta


def _decimal(value: Json) -> float:
    number = decimal(value) if isinstance(value, str) else None
    if number is None:
        raise ValueError("not a decimal number")
    return float(number)


class _naming:
    """Names what was being checked when a check failed."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DandelionError):
            raise WireError(error.token, self.what) from None
