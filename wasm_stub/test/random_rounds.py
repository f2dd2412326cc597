"""Random descriptors, admissions and promises (docs/protocol.md 3.2, 14, 16)."""

import random
import struct
from typing import Any, Final

from random_plans import plan_object

from client_py.admit import admit
from client_py.config import PinnedConfig, Policy
from dandelion import kernel
from dandelion.descriptor import Descriptor, Envelope, HelperEntry, sign_descriptor
from dandelion.encoding import canonical_json, identity_of
from dandelion.errors import DandelionError
from dandelion.params import INTEGER_END as END
from dandelion.privacy import accounting

Case = dict[str, Any]


def _mask_keys() -> list[bytes]:
    points = [kernel.x25519_public(bytes([n]) * 32) for n in range(1, 5)]
    p = 2**255 - 19
    return points + [n.to_bytes(32, "little") for n in (0, 1, p - 1, p, p + 9, 2**255 + 9, 9)]


MASK_KEYS: Final = _mask_keys()


def descriptors(rng: random.Random) -> Case:
    """A descriptor, valid or with one or two fields that may be at fault; sometimes cut."""
    slots, width = rng.choice((1, 4, 1000)), rng.choice((16, 24, 32, 64))
    linf = rng.choice((1, 3, 100, 2**20, 2**26))
    l2sq = rng.choice((linf * linf, linf * linf + 1, slots * linf * linf, 3 * linf * linf))
    m = rng.choice((2, 2, 2, 3, 16))
    fields: dict[str, int] = {
        "scheme": 1, "suite": rng.choice((1, 2)), "opens": 100, "closes": 200, "expires": 300,
        "slots": slots, "width": width, "shard_bits": rng.choice((0, 0, 1, 8)), "cohort_min": 2,
        "cohort_max": rng.choice((2, 10, 1000)), "linf": linf, "l2sq": min(l2sq, END - 1),
        "noise_var": rng.choice((1, 2, 26, 2**20, END - 1)),
    }  # fmt: skip
    if rng.random() < 0.5:
        # The largest cohort that fits, or one more.
        bound = 12 * _ceil_sqrt(m * fields["noise_var"]) + 1
        fits = ((1 << (width - 1)) - bound) // linf + rng.choice((0, 1))
        fields["cohort_max"] = min(max(fits, 1), 2**22)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        name = rng.choice(list(fields))
        size = _SIZES[name]
        top = 256**size
        fields[name] = rng.choice((0, 1, 2, 99, 100, 200, 301, END - 1, END, top - 1)) % top
    scope = rng.choice((b"kat",) * 20 + (b"", b"A", b"a" * 64, b"a" * 65, b"\xe9", b"a\n"))
    issuer = rng.choice((b"",) * 20 + (bytes(32), bytes(31)))
    identities = sorted(rng.randbytes(32) for _ in range(m))
    collector = rng.randbytes(32)
    keys = [rng.choice(MASK_KEYS[:4]), *map(kernel.x25519_public, identities[1:])]
    match rng.randrange(20):
        case 0:
            identities.reverse()
        case 1:
            identities[0] = identities[1]
        case 2:
            collector = rng.choice(identities)
        case 3:
            keys[0] = keys[-1]
        case 4 | 5:
            keys[-1] = rng.choice(MASK_KEYS)
        case 6:
            identities, keys = identities[:1], keys[:1]
        case 7:
            identities, keys = [], []
    details = rng.choice((b"",) * 20 + (b"x",))
    plan = rng.choice((b"{}",) * 18 + (b"{ }", canonical_json(plan_object(rng))))
    data = bytearray(b"dandelion\x01")
    for name, value in fields.items():
        data += value.to_bytes(_SIZES[name], "big")
    data += bytes([len(scope)]) + scope + bytes([len(issuer)]) + issuer + collector
    data += bytes([len(keys)]) + b"".join(map(bytes.__add__, identities, keys))
    data += struct.pack(">H", len(details)) + details + struct.pack(">I", len(plan)) + plan
    match rng.randrange(12):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            data += b"\x00"
    case: Case = {"descriptor": data.hex()}
    try:
        d = Descriptor.decode(bytes(data))
    except DandelionError as error:
        return case | {"expect": error.token}
    output = {"ctx": d.ctx.hex(), "report_bytes": d.report_bytes, "rho_units": str(d.rho_units)}
    return case | {"expect": "valid", "noise_bound": d.noise_bound} | output


_SIZES: Final = {
    "scheme": 1, "suite": 1, "opens": 8, "closes": 8, "expires": 8, "slots": 4, "width": 1,
    "shard_bits": 1, "cohort_min": 4, "cohort_max": 4, "linf": 8, "l2sq": 8, "noise_var": 8,
}  # fmt: skip


def _ceil_sqrt(value: int) -> int:
    low = 0
    high = value + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle * middle < value else (low, middle)
    return low


FAULTS: Final = (
    "none", "epsilon", "slots", "linf", "l2sq", "outputs", "signer", "suite", "collector",
    "helper", "helper more", "helper less", "cohort", "rho", "lifetime",
)  # fmt: skip


def admissions(rng: random.Random) -> Case:
    """An envelope with the pins and floors of a client: it fits, or has a fault or several."""
    faults = set(rng.choices(FAULTS, k=rng.choice((1, 1, 1, 2, 4))))
    seeds = sorted((rng.randbytes(32) for _ in range(rng.choice((2, 3)))), key=identity_of)
    collector, stranger = rng.randbytes(32), rng.randbytes(32)
    # A histogram and a count, so that one of linf and l2sq can be too small alone.
    histogram = {"bins": 4, "column": "load", "hi": 4, "lo": 0, "op": "histogram", "scale": 3}
    rows_max = rng.choice((2, 4))
    linf, l2sq = 3 * rows_max - ("linf" in faults), 18 * rows_max**2 - ("l2sq" in faults)
    delta, variance = rng.choice(("1e-8", "0.5")), rng.choice((1, 50, 1000))
    real = accounting.epsilon(accounting.rho_units(l2sq, variance), float(delta))
    document: dict[str, Any] = {
        "delta": delta,
        # Just enough, or just not; the slack of section 16 is 1e-9.
        "epsilon": f"{max(real, 0.001) + (-4e-9 if 'epsilon' in faults else 4e-9):.12f}",
        "event": "page",
        "kind": "aggregate",
        "measures": [histogram, {"op": "count", "scale": 3}],
        "outputs": [{"measure": int("outputs" in faults), "name": "n", "op": "histogram"}],
        "query": "kat",
        "rows_max": rows_max,
        "sql": "SELECT HISTOGRAM(load, 4) FROM page",
    }
    descriptor = Descriptor(
        suite=rng.choice((1, 2)),
        opens=100,
        closes=200,
        expires=1_000,
        slots=6 if "slots" in faults else 5,
        width=32,
        shard_bits=0,
        cohort_min=10,
        cohort_max=1_000,
        linf=linf,
        l2sq=l2sq,
        noise_var=variance,
        scope="kat",
        collector=identity_of(collector),
        helpers=tuple(HelperEntry(identity_of(seed), kernel.x25519_public(seed)) for seed in seeds),
        plan=canonical_json(document),
    )
    signers = [collector, *seeds]
    if "signer" in faults:
        signers[rng.randrange(len(signers))] = stranger
    envelope = Envelope(descriptor, tuple(sign_descriptor(descriptor, each) for each in signers))
    named = [identity_of(seed) for seed in seeds]
    if "helper" in faults:
        named[rng.randrange(len(named))] = identity_of(rng.randbytes(32))
    if "helper more" in faults:
        named.append(identity_of(stranger))
    if "helper less" in faults and len(named) > 2:
        named.pop()
    other = identity_of(rng.randbytes(32))
    pinned = PinnedConfig(
        endpoint="https://collector.example",
        collector=other if "collector" in faults else descriptor.collector,
        helpers=tuple(named),
        suites=(3 - descriptor.suite,) if "suite" in faults else (1, 2),
    )
    policy = Policy(
        cohort_min=10 + ("cohort" in faults),
        epsilon_round=max(real, 0.001) * 0.999 if "rho" in faults else 10_000.0,
        delta=float(delta),
        lifetime_max_s=900 - ("lifetime" in faults),
    )
    case: Case = {
        "envelope": envelope.encode().hex(),
        "suites": pinned.suites,
        "collector": pinned.collector.hex(),
        "helpers": [each.hex() for each in pinned.helpers],
        "cohort_min": policy.cohort_min,
        "rho_round_max": min(policy.rho_round_max, END - 1),
        "lifetime_max_s": policy.lifetime_max_s,
        "faults": sorted(faults),
    }
    try:
        admitted = admit(envelope.encode(), pinned, policy)
    except DandelionError as error:
        return case | {"expect": error.token}
    return case | {"expect": "valid", "rho_units": admitted.descriptor.rho_units}


def accounts(rng: random.Random) -> Case:
    """Bounds, noise and delta, and what they cost; a promise, and what it allows."""
    l2sq, noise_var = (rng.randint(1, 2 ** rng.randint(1, 53) - 1) for _ in range(2))
    delta = 10.0 ** rng.uniform(-20, -0.01)
    units = accounting.rho_units(l2sq, noise_var)
    target = 10.0 ** rng.uniform(-3, 2)
    return {
        "l2sq": l2sq,
        "noise_var": noise_var,
        "delta": delta,
        "rho_units": str(units),
        "epsilon": accounting.epsilon(units, delta),
        "target": target,
        "allowed": accounting.rho_units_for_epsilon(target, delta),
    }
