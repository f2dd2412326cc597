"""A plan in plain words, for receipts and for the public list of queries (docs/protocol.md 14, 15).

Everything but the quoted question is derived from the plan's operators, never from what a collector
says of them, so a person reads what a client will do.
"""

import math
from collections.abc import Sequence

from dandelion.queries.measures import Count, Histogram, Measure, Sum, Where
from dandelion.queries.plan import Plan

_TESTS = {
    "eq": "is",
    "ne": "is not",
    "lt": "is below",
    "le": "is at most",
    "gt": "is above",
    "ge": "is at least",
}
_LISTED = 6


def explain(plan: Plan, *, helpers: int | None = None, cohort_min: int | None = None) -> str:
    """What a client does for this plan and what it reveals: a few sentences, no markup.

    Args:
        plan: a parsed plan.
        helpers: how many helpers add noise, if known.
        cohort_min: the least number of reports that are added up, if known.
    """
    sentences = [
        f"The question, as asked: “{plan.sql.strip()}”.",
        _rows(plan),
        _adds(plan),
        "If nothing matches it sends zeros, so taking part says nothing about what is recorded.",
        _masked(helpers, cohort_min),
        _promise(plan),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _rows(plan: Plan) -> str:
    most = "at most one record" if plan.rows_max == 1 else f"at most {plan.rows_max} records"
    where = ""
    if plan.where:
        where = " of those where " + " and ".join(_condition(each) for each in plan.where)
    return (
        f"Your client looks at its own records of “{plan.event}” and uses {most}{where}, "
        "drawn at random if there are more."
    )


def _condition(where: Where) -> str:
    value = f"“{where.value}”" if isinstance(where.value, str) else str(where.value)
    return f"{where.column} {_TESTS[where.test]} {value}"


def _adds(plan: Plan) -> str:
    parts = _enumerate([_measure(measure) for measure in plan.measures])
    group = ""
    if plan.group is not None:
        group = (
            f", for the {plan.group.column} it belongs to ({_values(plan.group.values)}; a record "
            "with any other value is left out)"
        )
    each = "that record" if plan.rows_max == 1 else "each of them"
    size = f"{plan.slots} number{'s' if plan.slots > 1 else ''}"
    return f"From {each} it takes {parts}{group}. The result is a list of {size}."


def _measure(measure: Measure) -> str:
    match measure:
        case Count(column=None):
            return "that the record exists"
        case Count():
            return f"whether {measure.column} is known"
        case Sum():
            return f"{measure.column}, limited to {measure.lo} to {measure.hi}"
        case Histogram():
            return (
                f"into which of {measure.bins} ranges from {measure.lo} to {measure.hi} "
                f"{measure.column} falls"
            )


def _masked(helpers: int | None, cohort_min: int | None) -> str:
    helped = "independent helpers" if helpers is None else f"{helpers} independent helpers"
    many = "many clients" if cohort_min is None else f"at least {cohort_min} clients"
    return (
        f"The list is masked before it is sent. Only its sum over {many} becomes readable, after "
        f"{helped} have each added random noise."
    )


def _promise(plan: Plan) -> str:
    epsilon = float(plan.epsilon)
    factor = f"{math.exp(epsilon):.3g} times" if epsilon <= 20 else f"e^{plan.epsilon} times"
    return (
        f"The promise is epsilon {plan.epsilon}, delta {plan.delta}: with your records or with "
        f"zeros in their place, any published result is at most {factor} as likely, except with "
        f"a probability of about {plan.delta}."
    )


def _values(values: Sequence[str]) -> str:
    listed = ", ".join(values[:_LISTED])
    more = len(values) - _LISTED
    return listed if more <= 0 else f"{listed} and {more} more"


def _enumerate(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
