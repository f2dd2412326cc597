"""Opening a round: fresh mask keys, descriptor, signatures, envelope (docs/protocol.md 3, 4, 11).

Nothing is promised before every helper has signed; what a helper sends is verified before use. A
helper that has reserved budget for a round that does not come about frees it by itself at
`expires`.

Leaves out: making the round known (`rounds`).
"""

import asyncio
import os
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from collector.book import Round
from collector.helper_client import Helper, HelperRefused, HelperUnavailable
from collector.store import SECRET_BYTES
from dandelion import kernel
from dandelion.descriptor import (
    Descriptor,
    Envelope,
    HelperEntry,
    partial_envelope,
    sign_descriptor,
)
from dandelion.encoding import identity_of, verify
from dandelion.errors import DandelionError, RuleError, WireError
from dandelion.round import Phase

_T = TypeVar("_T")
# A helper's refusal of this collector's credentials is our fault, not the operator's.
_OURS: Final = frozenset({"unauthorized", "forbidden", "not_found", "method_not_allowed"})


async def open_round(
    document: dict[str, Any],
    times: tuple[int, int, int],
    *,
    helpers: Sequence[Helper],
    seed: bytes,
    partitions: int,
) -> Round:
    """A round that all helpers have signed, in phase `open`, not yet stored anywhere.

    Args:
        document: the query, as `asking` made it.
        times: opens, closes, expires, in Unix seconds.
        helpers: all helpers, in any order.
        seed: the collector's identity seed.
        partitions: storage partitions of each release shard.

    Raises:
        RuleError: a helper's refusal with its token, or `helper_unavailable`.
        WireError: what section 3.2 refuses.
    """
    ordered = sorted(helpers, key=lambda helper: helper.identity)
    keys = await asyncio.gather(*(_asked(helper, helper.new_key()) for helper in ordered))
    for helper, key in zip(ordered, keys, strict=True):
        if not kernel.key_is_acceptable(key):
            raise RuleError("helper_unavailable", f"helper {helper.name}: not a mask key")
    opens, closes, expires = times
    descriptor = Descriptor(
        suite=document["suite"],
        opens=opens,
        closes=closes,
        expires=expires,
        slots=document["slots"],
        width=document["width"],
        shard_bits=document["shard_bits"],
        cohort_min=document["cohort_min"],
        cohort_max=document["cohort_max"],
        linf=document["linf"],
        l2sq=document["l2sq"],
        noise_var=document["noise_var"],
        scope=document["scope"],
        collector=identity_of(seed),
        helpers=tuple(
            HelperEntry(helper.identity, key) for helper, key in zip(ordered, keys, strict=True)
        ),
        plan=document["plan_bytes"].encode(),
    )
    own = sign_descriptor(descriptor, seed)
    partial = partial_envelope(descriptor, own)
    signatures = await asyncio.gather(
        *(_signature(helper, descriptor, partial) for helper in ordered)
    )
    return Round(
        Envelope(descriptor, (own, *signatures)).encode(),
        Phase.OPEN,
        document["name"],
        os.urandom(SECRET_BYTES),
        partitions,
    )


async def _signature(helper: Helper, descriptor: Descriptor, partial: bytes) -> bytes:
    signature = await _asked(helper, helper.sign(partial))
    try:
        verify(helper.identity, "descriptor", descriptor.ctx, signature)
    except WireError:
        text = f"helper {helper.name}: its signature does not verify"
        raise RuleError("helper_unavailable", text) from None
    return signature


async def _asked(helper: Helper, answer: Awaitable[_T]) -> _T:
    """What the helper answers; its refusal becomes ours, naming it."""
    try:
        return await answer
    except HelperUnavailable as error:
        refusal: DandelionError = RuleError(
            "helper_unavailable", f"helper {helper.name}: {error.reason}"
        )
    except HelperRefused as error:
        token = "helper_unavailable" if error.token in _OURS else error.token
        refusal = RuleError(token, f"helper {helper.name}: {error.token}")
    raise refusal
