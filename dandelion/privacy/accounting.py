"""From bounds and noise to rho, and from rho to epsilon (docs/protocol.md section 16).

Budgets are integers; floating point appears only where a person reads an epsilon. Neighbours are
zero-out: one client's vector is replaced by zeros.

The conversion holds for every rho-zCDP mechanism in any dimension. A tighter figure exists for
one slot of sensitivity one; it does not carry over to vectors, so it is not used.
"""

import math
from typing import Final

from dandelion.params import INTEGER_END, RHO_UNITS_PER_RHO

_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def rho_units(l2sq: int, noise_var: int) -> int:
    """`ceil(l2sq * 2^40 / (2 * noise_var))`: the cost of one release in units of 2^-40 rho."""
    return -(-l2sq * RHO_UNITS_PER_RHO // (2 * noise_var))


def epsilon(units: int, delta: float) -> float:
    """The least epsilon for which `units` of rho imply (epsilon, delta)-DP.

    Source: Canonne, Kamath, Steinke 2020, proposition 12; minimised over alpha by golden section
        (the
    expression is unimodal in log(alpha - 1)).

    Raises:
        ValueError: delta is not within (0, 1).
    """
    if not 0 < delta < 1:
        raise ValueError("delta must lie between 0 and 1")
    rho = units / RHO_UNITS_PER_RHO
    if rho == 0:
        return 0.0

    def at(log_excess: float) -> float:
        excess = math.exp(log_excess)
        alpha = 1 + excess
        return alpha * rho - math.log1p(1 / excess) - (math.log(delta) + math.log(alpha)) / excess

    low, high = -20.0, 40.0
    while high - low > 1e-9:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if at(left) < at(right):
            high = right
        else:
            low = left
    return max(0.0, at((low + high) / 2))


def rho_units_for_epsilon(target: float, delta: float) -> int:
    """The most rho, in units, that is still (target, delta)-DP.

    Raises:
        ValueError: target is not positive or delta not within (0, 1).
    """
    if not target > 0:
        raise ValueError("epsilon must be positive")
    low, high = 0, 1
    while epsilon(high, delta) <= target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon(middle, delta) <= target:
            low = middle
        else:
            high = middle
    return low


def noise_var_for(l2sq: int, target: float, delta: float) -> int:
    """The least integer variance per slot with which a release of this l2sq is (target, delta)-DP.

    Raises:
        ValueError: target or delta out of range, or a variance of 2^53 or more would be needed.
    """
    units = rho_units_for_epsilon(target, delta)
    if units == 0:
        raise ValueError("epsilon is too small to be represented")
    variance = max(1, -(-l2sq * RHO_UNITS_PER_RHO // (2 * units)))
    if variance >= INTEGER_END:
        raise ValueError("the noise needed does not fit a descriptor")
    return variance
