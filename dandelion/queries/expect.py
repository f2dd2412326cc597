"""How far off the answers of a plan will be, before anybody is asked (docs/protocol.md 15.4).

Errors of counts, sums and bins depend on the plan and the noise alone. The error of an average
depends on its count and on the average itself, so what is expected is said for rows that are
spread evenly over the groups: at the middle of the column's range, where the error is least, and
at its bounds, where it is largest.

Leaves out: how much noise a promise needs (`dandelion.privacy`), and the error of sampling.
"""

import math
from dataclasses import asdict, dataclass

from dandelion.queries.decode import COUNT_ERRORS_MIN, Z95, fieller
from dandelion.queries.measures import Histogram, Output, Sum
from dandelion.queries.plan import Plan


@dataclass(frozen=True)
class Expected:
    """What is known of one output in advance; the same for each of its cells.

    Attributes:
        name: the output.
        cells: of it in the table: groups, times bins.
        std_error: due to noise; of an average at the middle of its range.
        std_error_most: the largest; differs from `std_error` for averages only.
        ci_half: half the width of the 95 % interval that belongs to `std_error`.
        rows: of one cell, if all rows were spread evenly over groups and bins.
        withheld: an average whose count is not expected to be distinct from zero; then the three
            errors are None.
    """

    name: str
    cells: int
    std_error: float | None
    std_error_most: float | None
    ci_half: float | None
    rows: float
    withheld: bool = False

    def to_object(self) -> dict[str, object]:
        """Every field, fit for JSON."""
        return asdict(self)


def expected(plan: Plan, noise_var_total: int, rows: int) -> tuple[Expected, ...]:
    """What to expect of each output.

    Args:
        plan: the plan.
        noise_var_total: variance of the noise in each slot, as for `decode`.
        rows: that will count, of all clients together.
    """
    sigma = math.sqrt(noise_var_total)
    return tuple(_output(plan, output, sigma, rows) for output in plan.outputs)


def _output(plan: Plan, output: Output, sigma: float, rows: int) -> Expected:
    measure = plan.measures[output.measure]
    groups = len(plan.groups)
    error = sigma / measure.scale
    if isinstance(measure, Histogram):
        cells = groups * measure.bins
        return Expected(output.name, cells, error, error, Z95 * error, rows / cells)
    if output.count is None or not isinstance(measure, Sum):
        return Expected(output.name, groups, error, error, Z95 * error, rows / groups)
    count_error = sigma / plan.measures[output.count].scale
    if output.op == "sum":
        error = math.hypot(error, measure.centre * count_error)
        return Expected(output.name, groups, error, error, Z95 * error, rows / groups)
    count = rows / groups
    if count <= 0 or count < COUNT_ERRORS_MIN * count_error:
        return Expected(output.name, groups, None, None, None, count, withheld=True)
    reach = max(measure.hi - measure.centre, measure.centre - measure.lo)
    low, high = fieller(0.0, error, count, count_error)
    return Expected(
        output.name,
        groups,
        error / count,
        math.hypot(error, reach * count_error) / count,
        (high - low) / 2,
        count,
    )
