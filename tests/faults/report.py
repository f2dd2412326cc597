"""What came of a run: verdicts, numbers, and whether it shows what it is for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dandelion.round import Phase
from tests.faults.oracle import Verdicts


class Expect(StrEnum):
    """What a run is for."""

    PEACE = "nothing is lost"
    # A control that the product itself must notice.
    DETECTED = "losses are detected, nothing wrong is released"
    # A control with a broken product, which must not get past the oracle.
    CAUGHT = "the broken product is caught"


@dataclass
class Report:
    """What came of a run.

    Attributes:
        injected: faults by kind.
        answers: what clients heard, by outcome.
        faults: what else is wrong, beside the invariants.
        folder: the logs, kept if the run failed.
    """

    name: str
    seed: int
    seconds: float
    verdicts: Verdicts
    injected: Counter[str]
    answers: Counter[str]
    faults: list[str]
    expect: Expect
    folder: Path

    @property
    def damaged(self) -> int:
        """Rounds that the product itself gave up as damaged."""
        return self.verdicts.numbers[Phase.DAMAGED]

    @property
    def says_something(self) -> bool:
        """Whether a round with acknowledged reports came to its end; else nothing was shown."""
        numbers = self.verdicts.numbers
        return bool(numbers["acknowledged"] and (numbers["included"] or self.damaged))

    @property
    def passed(self) -> bool:
        """Whether the run shows what it is for."""
        wrong = any(faults for name, faults in self.verdicts.faults.items() if name != "I8")
        match self.expect:
            case Expect.PEACE:
                return self.verdicts.hold and not self.faults and self.says_something
            case Expect.DETECTED:
                return self.damaged > 0 and not wrong and not self.faults
            case Expect.CAUGHT:
                return self.damaged > 0 or wrong

    def lines(self) -> list[str]:
        """For people."""
        numbers = self.verdicts.numbers
        verdict = "passed" if self.passed else "FAILED"
        head = f"{self.name}: seed {self.seed}, {self.seconds:.0f} s, {self.expect}: {verdict}"
        reports = {it: numbers[it] for it in ("submitted", "acknowledged", "included")}
        found = [
            head,
            f"  rounds   {_counts({it: numbers[it] for it in Phase if numbers[it]})}",
            f"  reports  {_counts(reports)}",
            f"  injected {_counts(self.injected)}",
            f"  answers  {_counts(self.answers)}",
        ]
        found += [f"  {line}" for line in self.verdicts.lines()]
        found += [f"  also: {fault}" for fault in self.faults]
        if not self.says_something:
            found.append("  also: no round came to anything, so that this shows nothing")
        if not self.passed:
            found.append(f"  logs are in {self.folder}")
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(numbers.items())) or "none"
