"""What the published vectors exercise: one function from a vector's input to its output.

The writer and the tests run these same functions, so a vector and its meaning cannot drift apart
(docs/protocol.md section 17).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from dandelion import kernel
from dandelion.descriptor import Descriptor, Envelope
from dandelion.encoding import Json, canonical_json, parse_canonical_json, verify
from dandelion.errors import DandelionError, RuleError, WireError
from dandelion.messages import Answer, Ask, Report
from dandelion.params import INTEGER_END
from dandelion.privacy import accounting
from dandelion.queries.plan import Plan
from dandelion.schemes import oneshot
from dandelion.verify import verify_release

VALID: Final = "valid"

Input = Mapping[str, Any]
Output = dict[str, Json]


def _integer(value: int) -> int | str:
    """A JSON number below 2^53; from there on a decimal string, which every reader keeps exact."""
    return value if value < INTEGER_END else str(value)


def _prg(given: Input) -> Output:
    stream = kernel.prg(given["suite"], bytes.fromhex(given["seed"]), given["length"])
    return {"stream": stream.hex()}


def _key(given: Input) -> Output:
    if not kernel.key_is_acceptable(bytes.fromhex(given["key"])):
        raise WireError("bad_key")
    return {}


def _signature(given: Input) -> Output:
    identity, body, signature = (bytes.fromhex(given[k]) for k in ("identity", "body", "signature"))
    verify(identity, given["label"], body, signature)
    return {}


def _plan_bytes(given: Input) -> Output:
    parse_canonical_json(bytes.fromhex(given["bytes"]))
    return {}


def _descriptor(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    return {
        "ctx": d.ctx.hex(),
        "round": d.round_id.hex(),
        "report_bytes": d.report_bytes,
        "rho_units": _integer(d.rho_units),
    }


def _envelope(given: Input) -> Output:
    return {"round": Envelope.decode(bytes.fromhex(given["envelope"])).descriptor.round_id.hex()}


def _mask(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    values = np.array(given["values"], dtype=np.int64)
    secret = bytes.fromhex(given["ephemeral_secret"])
    epk = kernel.x25519_public(secret)
    seeds: list[Json] = [
        kernel.mask_seed(
            kernel.shared_secret(secret, entry.mask_key, epk, entry.mask_key), d.ctx, party
        ).hex()
        for party, entry in enumerate(d.helpers, start=1)
    ]
    report = oneshot.mask(d, values, oneshot.EphemeralKey(secret))
    return {"seeds": seeds, "report": report.encode().hex()}


def _report(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    report = Report.decode(bytes.fromhex(given["report"]), d.round_id, d.report_bytes)
    return {"epk": report.epk.hex(), "shard": d.shard_of(report.epk)}


def _ask(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    ask = Ask.decode(bytes.fromhex(given["ask"]))
    if ask.ctx != d.ctx:
        raise RuleError("unknown_round")
    oneshot.check_keys(d, ask.shard, ask.keys)
    ask.verify(d.collector)
    return {"set": ask.set_digest.hex(), "n": ask.n}


def _noise(given: Input) -> Output:
    drawn = kernel.discrete_gaussian(
        given["suite"], bytes.fromhex(given["seed"]), given["noise_var"], given["slots"]
    )
    return {"values": np.frombuffer(drawn, dtype="<i8").tolist()}


def _answer(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    ask = Ask.decode(bytes.fromhex(given["ask"]))
    root, party = bytes.fromhex(given["root"]), given["party"]
    r = oneshot.answer_vector(d, party, root, ask.shard, ask.set_digest, ask.keys)
    answer = Answer.create(ask, party, r, bytes.fromhex(given["identity_seed"]))
    return {"answer": answer.encode().hex()}


def _answer_check(given: Input) -> Output:
    d = Descriptor.decode(bytes.fromhex(given["descriptor"]))
    ask = Ask.decode(bytes.fromhex(given["ask"]))
    answer = Answer.decode(bytes.fromhex(given["answer"]), d.payload_bytes)
    answer.check(ask, given["party"], d.helpers[given["party"] - 1].identity)
    return {}


def _release(given: Input) -> Output:
    checked = verify_release(bytes.fromhex(given["release"]))
    return {"n": checked.n, "values": checked.sums.tolist()}


def _accounting(given: Input) -> Output:
    units = accounting.rho_units(given["l2sq"], given["noise_var"])
    epsilon = accounting.epsilon(units, float(given["delta"]))
    return {"rho_units": _integer(units), "epsilon": f"{epsilon:.6f}"}


def _plan(given: Input) -> Output:
    plan = Plan.parse(canonical_json(given["plan"]))
    values = plan.execute(given["rows"], lambda n, k: given["chosen"])
    return {"vector": values.tolist(), "linf": plan.linf, "l2sq": plan.l2sq}


OPERATIONS: Final[Mapping[str, Callable[[Input], Output]]] = {
    "prg": _prg,
    "keys": _key,
    "signatures": _signature,
    "plan_bytes": _plan_bytes,
    "descriptor": _descriptor,
    "envelope": _envelope,
    "mask": _mask,
    "report": _report,
    "ask": _ask,
    "noise": _noise,
    "answer": _answer,
    "answer_check": _answer_check,
    "release": _release,
    "accounting": _accounting,
    "plan": _plan,
}


def run(operation: str, given: Input) -> tuple[Output, str]:
    """Output of an operation and `valid`, or nothing and the token of the error it ended in."""
    try:
        return OPERATIONS[operation](given), VALID
    except DandelionError as error:
        return {}, error.token
