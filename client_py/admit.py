"""Whether a round may be answered at all (docs/protocol.md section 14, steps 1 and 2).

Judged from the envelope, the pinned configuration and the policy alone: no event, no coin, no
clock. So the verdict on one envelope is always the same and may be remembered.

Leaves out: what follows once a round is admitted (`client`).
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from client_py.config import PinnedConfig, Policy
from dandelion.descriptor import Descriptor, Envelope
from dandelion.errors import DandelionError, RuleError, WireError
from dandelion.privacy import accounting
from dandelion.queries.explain import explain
from dandelion.queries.plan import Plan

_REMEMBERED: Final = 64

# Stated and computed epsilon agree to this; it covers the rounding of floating point only.
_EPSILON_SLACK: Final = 1e-9


@dataclass(frozen=True)
class Admitted:
    """A round that satisfies pins and floors, and its plan."""

    descriptor: Descriptor
    plan: Plan
    explanation: str


def admit(envelope: bytes, config: PinnedConfig, policy: Policy) -> Admitted:
    """Judges an envelope, in the order of the text.

    Raises:
        WireError: a token of sections 3.2 and 3.4, or `bad_plan`.
        RuleError: `pin_mismatch`, `floor_cohort`, `floor_noise`, `floor_time`.
    """
    descriptor = Envelope.decode(envelope).descriptor
    check_pins(descriptor, config)
    check_floors(descriptor, policy)
    plan = check_plan(descriptor)
    text = explain(plan, helpers=descriptor.m, cohort_min=descriptor.cohort_min)
    return Admitted(descriptor, plan, text)


def check_pins(descriptor: Descriptor, config: PinnedConfig) -> None:
    """Step 1: the deployment is the pinned one.

    Raises:
        RuleError: `pin_mismatch`, naming the item.
    """
    if descriptor.scheme != config.scheme:
        raise RuleError("pin_mismatch", "scheme")
    if descriptor.suite not in config.suites:
        raise RuleError("pin_mismatch", "suite")
    if descriptor.collector != config.collector:
        raise RuleError("pin_mismatch", "collector")
    if descriptor.m != config.m:
        raise RuleError("pin_mismatch", "number of helpers")
    if tuple(helper.identity for helper in descriptor.helpers) != config.helpers:
        raise RuleError("pin_mismatch", "helpers")


def check_floors(descriptor: Descriptor, policy: Policy) -> None:
    """Step 2: the round is within the policy.

    Raises:
        RuleError: `floor_cohort`, `floor_noise`, `floor_time`.
    """
    if descriptor.cohort_min < policy.cohort_min:
        raise RuleError("floor_cohort", f"below {policy.cohort_min}")
    if descriptor.rho_units > policy.rho_round_max:
        raise RuleError("floor_noise", f"more than epsilon {policy.epsilon_round} allows")
    if descriptor.expires - descriptor.opens > policy.lifetime_max_s:
        raise RuleError("floor_time", f"longer than {policy.lifetime_max_s} s")


def check_plan(descriptor: Descriptor) -> Plan:
    """Step 2: the plan is understood and stays within the descriptor's bounds.

    Raises:
        WireError: `bad_plan`.
    """
    plan = Plan.parse(descriptor.plan)
    if plan.slots != descriptor.slots:
        raise WireError("bad_plan", "the plan has another number of slots than the descriptor")
    if plan.linf > descriptor.linf or plan.l2sq > descriptor.l2sq:
        raise WireError("bad_plan", "the plan may exceed the descriptor's bounds")
    real = accounting.epsilon(descriptor.rho_units, float(plan.delta))
    if real > float(plan.epsilon) + _EPSILON_SLACK:
        raise WireError("bad_plan", "the noise does not give the stated epsilon")
    return plan


class RoundCache:
    """Verdicts on envelopes, shared by clients of one process.

    A verdict depends on the envelope's bytes, the pins and the policy, which together are the key.
    """

    def __init__(self) -> None:
        self._verdicts: OrderedDict[
            tuple[bytes, PinnedConfig, Policy], Admitted | DandelionError
        ] = OrderedDict()

    def admit(self, envelope: bytes, config: PinnedConfig, policy: Policy) -> Admitted:
        """As `admit`, remembered. Raises what `admit` raised the first time."""
        key = (hashlib.sha256(envelope).digest(), config, policy)
        verdict = self._verdicts.get(key)
        if verdict is None:
            try:
                verdict = admit(envelope, config, policy)
            except DandelionError as error:
                verdict = error
            self._verdicts[key] = verdict
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
        if isinstance(verdict, DandelionError):
            raise type(verdict)(verdict.token, verdict.detail)
        return verdict
