"""The discrete Gaussian has the law it is named after (section 7).

The draws are fixed by their seeds, so the statistics are numbers, not chances.
"""

import math

import numpy as np
import pytest

from dandelion import kernel
from tests import oracle

DRAWS = 200_000
SEED = bytes(range(32))
# Chance that a sampler with the right law exceeds the bounds below: one in a thousand each.
Z_999 = 3.0902

variances = pytest.mark.parametrize("variance", [1, 27, 1000])


def draws(variance: int, count: int = DRAWS, suite: int = 1) -> oracle.Values:
    drawn = kernel.discrete_gaussian(suite, SEED, variance, count)
    return np.frombuffer(drawn, "<i8")


def chi_square(sample: oracle.Values, variance: int) -> tuple[float, float]:
    """Pearson's statistic of a sample against the exact law, and the bound it should keep to.

    The law is exp(-k^2 / (2 variance)) over the integers; cells expected less than ten times are
    joined at both ends.
    """
    reach = math.ceil(12 * math.sqrt(variance)) + 1
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-(support**2) / (2 * variance))
    expected = len(sample) * weights / weights.sum()
    inside = support[expected >= 10]
    low, high = int(inside[0]), int(inside[-1])
    cells = np.clip(support, low, high) - low
    joined = np.bincount(cells, weights=expected)
    observed = np.bincount(np.clip(sample, low, high) - low, minlength=len(joined))
    statistic = float(((observed - joined) ** 2 / joined).sum())
    # Wilson and Hilferty's approximation of the quantile of chi-square.
    freedom = len(joined) - 1
    spread = 2 / (9 * freedom)
    return statistic, freedom * (1 - spread + Z_999 * math.sqrt(spread)) ** 3


@variances
@pytest.mark.parametrize("suite", [1, 2])
def test_draws_follow_the_exact_law(variance: int, suite: int) -> None:
    """Every value comes as often as the law says."""
    statistic, bound = chi_square(draws(variance, suite=suite), variance)
    assert statistic < bound


@pytest.mark.parametrize("variance, other", [(2, 1), (27, 28), (1000, 1030)])
def test_the_statistic_tells_other_laws_apart(variance: int, other: int) -> None:
    """The control: draws of a neighbouring variance do not pass."""
    statistic, bound = chi_square(draws(variance), other)
    assert statistic > bound


@pytest.mark.parametrize("variance", [27, 10**6, 2**40, 2**53 - 1])
def test_mean_and_variance(variance: int) -> None:
    """Mean zero and the stated variance, up to the largest that there is."""
    sample = draws(variance).astype(float) / math.sqrt(variance)
    assert abs(sample.mean()) < Z_999 / math.sqrt(DRAWS)
    assert abs(sample.var() - 1) < Z_999 * math.sqrt(2 / DRAWS)


def test_draws_are_independent_of_their_neighbours() -> None:
    """No correlation from one draw to the next."""
    sample = draws(27).astype(float)
    correlation = np.corrcoef(sample[:-1], sample[1:])[0, 1]
    assert abs(correlation) < Z_999 / math.sqrt(DRAWS)


def test_a_seed_gives_the_same_noise_again() -> None:
    """A helper that restarts draws what it drew before, and a shorter vector is a prefix."""
    assert draws(27, 1000).tolist() == draws(27, 1000).tolist()
    assert draws(27, 1000).tolist() == draws(27, 2000)[:1000].tolist()


def test_another_seed_gives_other_noise() -> None:
    """Noise of two seeds is unrelated."""
    other = np.frombuffer(kernel.discrete_gaussian(1, SEED[::-1], 27, DRAWS), "<i8")
    correlation = np.corrcoef(draws(27), other)[0, 1]
    assert abs(correlation) < Z_999 / math.sqrt(DRAWS)
