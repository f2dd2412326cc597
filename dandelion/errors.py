"""Errors that travel, and the closed list of their tokens (docs/protocol.md section 12).

Three kinds: wrong bytes (`WireError`), wrong moment or not allowed (`RuleError`), our own faults.
The first two are raised with a token of the list and become RFC 9457 problem documents at the
edge. Our own faults are ordinary Python exceptions; they are logged where they surface and
answered with `internal` and nothing inside.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from dandelion.params import PROBLEM_TYPE_PREFIX


class TokenInfo(NamedTuple):
    """HTTP status and title of an error token."""

    status: int
    title: str


TOKENS: Final[Mapping[str, TokenInfo]] = {
    "truncated": TokenInfo(400, "The message ends before a field does"),
    "trailing": TokenInfo(400, "Bytes follow the end of the message"),
    "bad_magic": TokenInfo(400, "Not a Dandelion descriptor of this version"),
    "bad_version": TokenInfo(400, "Unknown message version"),
    "bad_integer": TokenInfo(400, "An integer of 2^53 or more"),
    "bad_scheme": TokenInfo(400, "Unknown or unsupported scheme"),
    "bad_suite": TokenInfo(400, "Unknown cipher suite"),
    "bad_time": TokenInfo(400, "Times out of order"),
    "bad_slots": TokenInfo(400, "Number of slots out of range"),
    "bad_width": TokenInfo(400, "Word width not allowed"),
    "bad_shards": TokenInfo(400, "Too many release shards"),
    "bad_cohort": TokenInfo(400, "Cohort bounds out of range"),
    "bad_bounds": TokenInfo(400, "Contribution bounds contradict each other"),
    "bad_noise": TokenInfo(400, "No noise"),
    "overflow": TokenInfo(400, "Sums may exceed the word width"),
    "bad_scope": TokenInfo(400, "Scope is not a name"),
    "bad_issuer": TokenInfo(400, "Issuer is neither absent nor 32 bytes"),
    "bad_helpers": TokenInfo(400, "Helper list refused"),
    "bad_key": TokenInfo(400, "Unacceptable X25519 key"),
    "bad_details": TokenInfo(400, "Details not allowed for this scheme"),
    "bad_plan": TokenInfo(400, "Plan is not canonical or not understood"),
    "bad_signature": TokenInfo(400, "A signature does not verify"),
    "bad_length": TokenInfo(400, "Body length differs from what the round requires"),
    "wrong_round": TokenInfo(400, "The report names another round"),
    "bad_set": TokenInfo(400, "Keys are not strictly ascending"),
    "wrong_shard": TokenInfo(400, "Unknown shard, or a key of another shard"),
    "bad_answer": TokenInfo(400, "An answer does not match its ask"),
    "bad_release": TokenInfo(400, "A release contradicts itself"),
    "implausible": TokenInfo(400, "A released value is outside its possible range"),
    "bad_request": TokenInfo(400, "The request is malformed"),
    "length_required": TokenInfo(411, "A Content-Length is required"),
    "too_large": TokenInfo(413, "The body is too large"),
    "encoding_refused": TokenInfo(415, "Content codings are not accepted"),
    "media_type": TokenInfo(415, "Unsupported media type"),
    "unauthorized": TokenInfo(401, "A valid bearer token is required"),
    "forbidden": TokenInfo(403, "The token lacks the scope for this"),
    "not_found": TokenInfo(404, "No such resource"),
    "unknown_round": TokenInfo(404, "No such round"),
    "unknown_query": TokenInfo(404, "No such query"),
    "not_asked": TokenInfo(404, "No ask has been accepted for this shard"),
    "not_released": TokenInfo(404, "The round has no release"),
    "method_not_allowed": TokenInfo(405, "Method not allowed"),
    "request_timeout": TokenInfo(408, "The request took too long to arrive"),
    "not_open": TokenInfo(409, "The round is not open yet"),
    "round_closed": TokenInfo(409, "The round takes no more reports"),
    "report_conflict": TokenInfo(409, "Another report with this key was accepted"),
    "query_exists": TokenInfo(409, "A query with this name exists"),
    "not_closed": TokenInfo(409, "The round is not closed yet"),
    "set_conflict": TokenInfo(409, "Another set was answered for this shard"),
    "key_used": TokenInfo(409, "The mask key has signed another descriptor"),
    "key_gone": TokenInfo(409, "The round root is gone or was restored"),
    "expired": TokenInfo(410, "The round has expired"),
    "cohort_too_small": TokenInfo(422, "Fewer reports than the cohort minimum"),
    "cohort_too_large": TokenInfo(422, "More reports than the cohort maximum"),
    "unknown_collector": TokenInfo(403, "The collector is not configured here"),
    "unknown_key": TokenInfo(403, "The mask key was not made here"),
    "unknown_scope": TokenInfo(403, "The scope is not configured here"),
    "floor_cohort": TokenInfo(403, "The cohort minimum is below the floor"),
    "floor_noise": TokenInfo(403, "The noise is below the floor"),
    "floor_time": TokenInfo(403, "The round lives too long"),
    "budget_exhausted": TokenInfo(403, "The budget of the scope cannot pay"),
    "too_many_keys": TokenInfo(429, "Too many unused round keys"),
    "too_many_rounds": TokenInfo(429, "Too many open rounds in this scope"),
    "pin_mismatch": TokenInfo(403, "The descriptor differs from the pinned configuration"),
    "sql_refused": TokenInfo(422, "The query is outside what can be asked"),
    "schema_refused": TokenInfo(422, "The event schema is not valid"),
    "key_consumed": TokenInfo(409, "The ephemeral key was used already"),
    "round_damaged": TokenInfo(409, "The store lost acknowledged reports"),
    "store_unavailable": TokenInfo(503, "The store cannot be reached"),
    "helper_unavailable": TokenInfo(503, "A helper cannot be reached"),
    "overloaded": TokenInfo(503, "Too much work is waiting"),
    "draining": TokenInfo(503, "The server is stopping"),
    "internal": TokenInfo(500, "Internal error"),
}


class DandelionError(Exception):
    """An error with a token of section 12. `detail` never repeats input.

    Raises:
        KeyError: the token is not in the list, which is a bug of the caller.
    """

    def __init__(self, token: str, detail: str = "") -> None:
        super().__init__(token, detail)
        self.token = token
        self.detail = detail
        self.status, self.title = TOKENS[token]

    def __str__(self) -> str:
        return f"{self.token}: {self.detail or self.title}"


class WireError(DandelionError):
    """Bytes that are not a valid message, or do not belong together."""


class RuleError(DandelionError):
    """A valid message at the wrong moment, or one that a rule forbids."""


def status_of(token: str) -> int:
    """HTTP status of a token."""
    return TOKENS[token].status


def problem(error: DandelionError | str, detail: str = "", **extra: object) -> dict[str, object]:
    """RFC 9457 problem document of an error, or of a bare token."""
    if isinstance(error, DandelionError):
        token, detail = error.token, error.detail
    else:
        token = error
    document: dict[str, object] = {
        "type": PROBLEM_TYPE_PREFIX + token,
        "title": TOKENS[token].title,
        "status": TOKENS[token].status,
    }
    if detail:
        document["detail"] = detail
    return document | extra
