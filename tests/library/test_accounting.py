"""Rho, epsilon, noise and the ledger's arithmetic (docs/protocol.md section 16)."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandelion.errors import WireError
from dandelion.privacy import accounting, ledger


@given(st.integers(1, 2**53 - 1), st.integers(1, 2**53 - 1))
def test_rho_is_exact_and_rounded_up(l2sq: int, noise_var: int) -> None:
    """The integer is the least at or above l2sq / (2 noise_var) in units of 2^-40."""
    exact = Fraction(l2sq, 2 * noise_var) * 2**40
    units = accounting.rho_units(l2sq, noise_var)
    assert units - 1 < exact <= units


@pytest.mark.parametrize("rho", [1e-6, 0.01, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-8, 1e-12])
def test_epsilon_is_the_minimum_over_alpha(rho: float, delta: float) -> None:
    """A fine grid over alpha finds nothing better, and nothing much worse."""
    units = math.ceil(rho * 2**40)
    excess = np.exp(np.linspace(-15, 25, 400_001))
    alpha = 1 + excess
    grid = alpha * units / 2**40 - np.log1p(1 / excess) - (np.log(delta * alpha)) / excess
    assert accounting.epsilon(units, delta) == pytest.approx(float(grid.min()), rel=1e-6)


def test_epsilon_never_undercuts_the_exact_figure_of_one_discrete_gaussian() -> None:
    """Against the privacy profile of one discrete Gaussian summed term by term.

    delta(eps) = sum over x of max(0, P(x) - e^eps P(x - 1)); the conversion must not promise less.
    """
    variance = 27
    xs = np.arange(-200, 201, dtype=np.float64)
    mass = np.exp(-(xs**2) / (2 * variance))
    mass /= mass.sum()
    epsilon = accounting.epsilon(accounting.rho_units(1, variance), 1e-8)
    exact_delta = np.maximum(0, mass[1:] - math.exp(epsilon) * mass[:-1]).sum()
    assert exact_delta <= 1e-8
    assert epsilon < 1.1


@pytest.mark.parametrize("target", [0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("l2sq", [1, 3, 97_200])
def test_noise_var_is_the_least_that_keeps_the_promise(target: float, l2sq: int) -> None:
    """One unit of variance less and epsilon is exceeded."""
    variance = accounting.noise_var_for(l2sq, target, 1e-8)
    assert accounting.epsilon(accounting.rho_units(l2sq, variance), 1e-8) <= target
    assert accounting.epsilon(accounting.rho_units(l2sq, variance - 1), 1e-8) > target


@pytest.mark.parametrize("epsilon, delta", [(0, 1e-8), (-1, 1e-8), (1, 0), (1, 1), (math.nan, 0.1)])
def test_meaningless_promises_are_refused(epsilon: float, delta: float) -> None:
    """No variance is computed for a promise that is none."""
    with pytest.raises(ValueError, match=r"epsilon|delta"):
        accounting.noise_var_for(1, epsilon, delta)


def chain(*kinds: str) -> list[ledger.Entry]:
    """A ledger with one entry per kind, all about one round of scope s."""
    entries: list[ledger.Entry] = []
    for kind in kinds:
        last = entries[-1] if entries else None
        entries.append(
            ledger.append(
                last, kind=kind, ctx=bytes(32), shard=0, scope="s", rho_units=7, at=1, note=""
            )
        )
    return entries


def test_a_round_is_paid_once() -> None:
    """Reserving and charging is one cost; freeing undoes it; two shards of a round cost one."""
    assert ledger.spent(chain(ledger.RESERVE), "s") == 7
    assert ledger.spent(chain(ledger.RESERVE, ledger.CHARGE), "s") == 7
    assert ledger.spent(chain(ledger.RESERVE, ledger.FREE), "s") == 0
    assert ledger.spent(chain(ledger.RESERVE), "other") == 0
    both = [*chain(ledger.RESERVE), replace(chain(ledger.RESERVE)[0], shard=1)]
    assert ledger.spent(both, "s") == 7
    two = [*chain(ledger.RESERVE), replace(chain(ledger.RESERVE)[0], ctx=b"x" * 32)]
    assert ledger.spent(two, "s") == 14


def test_the_chain_shows_every_kind_of_tampering() -> None:
    """Flip, drop, reorder, truncate at the front: all are seen, and the entry is named."""
    entries = chain(ledger.RESERVE, ledger.CHARGE, ledger.RELEASE)
    ledger.verify_chain(entries)
    for tampered in (
        [entries[0], replace(entries[1], rho_units=8), entries[2]],
        [entries[0], replace(entries[1], note="x"), entries[2]],
        [entries[0], entries[2]],
        [entries[1], entries[0], entries[2]],
        entries[1:],
    ):
        with pytest.raises(WireError, match="ledger entry"):
            ledger.verify_chain(tampered)


def test_moving_text_between_fields_changes_the_hash() -> None:
    """Scope and note are length-prefixed, so "ab" + "c" is not "a" + "bc"."""
    one = replace(chain(ledger.RESERVE)[0], scope="ab", note="c")
    two = replace(one, scope="a", note="bc")
    assert one.computed_hash() != two.computed_hash()
