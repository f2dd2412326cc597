"""What a client did, kept so that its owner can read it (docs/protocol.md section 14)."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How a round ended for this client."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    WAITING = "waiting"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    REFUSED = "refused"
    SKIPPED = "skipped"
    UNREACHABLE = "unreachable"

    @property
    def delivered(self) -> bool:
        """Whether the collector has acknowledged the report."""
        return self in (Outcome.ACCEPTED, Outcome.DUPLICATE)


_WORDS = {
    Outcome.ACCEPTED: "was sent and accepted",
    Outcome.DUPLICATE: "was sent before and is counted once",
    Outcome.WAITING: "is stored and will be sent again, byte for byte",
    Outcome.REJECTED: "was sent and finally refused by the collector",
    Outcome.LAPSED: "was never acknowledged before the round was over; the stored copy is deleted",
    Outcome.REFUSED: "was not made: this client refuses the round",
    Outcome.SKIPPED: "was not made: the coin said not to take part",
    Outcome.UNREACHABLE: "was not made: the collector gave no list of rounds",
}


@dataclass(frozen=True)
class Receipt:
    """One round as this client saw it.

    Attributes:
        outcome: see `Outcome`.
        at: Unix seconds.
        round_id: 32 hexadecimal digits; empty if no round was read.
        query, sql, scope: as the descriptor states them.
        epsilon, delta: as the plan states them; what was charged is `rho_units`.
        rho_units: charged to this client's own ledger, units of 2^-40 rho; 0 if nothing was.
        bytes_sent: length of the report's body.
        attempts: how often the body was sent.
        token, detail: why, if something was refused or failed. Never the input itself.
        fault: a fault of plan or gate, for which zeros were sent.
        explanation: what the plan does, in words.
    """

    outcome: Outcome
    at: int
    round_id: str = ""
    query: str = ""
    sql: str = ""
    scope: str = ""
    epsilon: str = ""
    delta: str = ""
    rho_units: int = 0
    bytes_sent: int = 0
    attempts: int = 0
    token: str = ""
    detail: str = ""
    fault: str = ""
    explanation: str = ""

    def to_object(self) -> dict[str, object]:
        """The receipt, fit for JSON."""
        return asdict(self)

    def in_words(self) -> str:
        """The receipt for its owner to read."""
        at = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        what = (
            f"the report for “{self.query}” (round {self.round_id[:8]})"
            if self.query
            else (f"a report for round {self.round_id[:8]}" if self.round_id else "a report")
        )
        lines = [f"{at}: {what} {_WORDS[self.outcome]}."]
        if self.token:
            lines.append(f"Reason: {self.token}{f' ({self.detail})' if self.detail else ''}.")
        if self.rho_units:
            lines.append(
                "It was charged to this collector's allowance, whatever becomes of it: "
                f"epsilon {self.epsilon} at delta {self.delta}."
            )
        if self.bytes_sent:
            times = "once" if self.attempts == 1 else f"{self.attempts} times"
            lines.append(f"{self.bytes_sent} bytes, sent {times}.")
        if self.fault:
            lines.append(f"Something went wrong here ({self.fault}), so only zeros were sent.")
        if self.explanation and self.outcome is not Outcome.REFUSED:
            lines.append(self.explanation)
        return " ".join(lines)
