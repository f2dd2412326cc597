"""Phases of a round and the one table of what may follow what (docs/protocol.md section 9)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from dandelion.errors import RuleError


class Phase(StrEnum):
    """Where a round stands."""

    OPEN = "open"
    CLOSING = "closing"
    SEALED = "sealed"
    RELEASED = "released"
    ABANDONED = "abandoned"
    DAMAGED = "damaged"


TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.OPEN: frozenset({Phase.CLOSING, Phase.DAMAGED}),
    Phase.CLOSING: frozenset({Phase.SEALED, Phase.ABANDONED, Phase.DAMAGED}),
    Phase.SEALED: frozenset({Phase.RELEASED, Phase.ABANDONED, Phase.DAMAGED}),
    Phase.RELEASED: frozenset(),
    Phase.ABANDONED: frozenset(),
    Phase.DAMAGED: frozenset(),
}

FINAL: Final = frozenset(phase for phase, after in TRANSITIONS.items() if not after)
# Commits already on their way when a round closes still count.
COMMITTING: Final = frozenset({Phase.OPEN, Phase.CLOSING})


def advance(phase: Phase, to: Phase) -> Phase:
    """`to`, if it may follow `phase`; the same phase again is no change.

    Raises:
        RuleError: `round_closed` if the step is not in the table.
    """
    if to is phase or to in TRANSITIONS[phase]:
        return to
    raise RuleError("round_closed", f"{phase} cannot become {to}")
