"""What an operator may ask for: queries and rounds as JSON, and what they become.

A query is compiled when it is added: its plan, bounds, noise and word width are fixed with it, so
every round of a query asks the same thing at the same price (docs/protocol.md sections 15, 16).
"""

import math
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from collector.config import Lifetimes
from dandelion.errors import RuleError, WireError
from dandelion.params import COHORT_MAX_MAX, SHARD_BITS_MAX, SUITE_X25519_CHACHA20, SUITES
from dandelion.privacy.accounting import noise_var_for, rho_units
from dandelion.queries.explain import explain
from dandelion.queries.schema import Registry
from dandelion.queries.sql import Expiry, compile_query

_M = TypeVar("_M", bound=BaseModel)
SQL_MAX: Final = 8_192
REGISTRY_MAX: Final = 524_288


def _decimal(value: object) -> str:
    """Plain decimal text of a number, as a plan states it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a decimal number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("not a decimal number") from None
    if not number.is_finite():
        raise ValueError("not a decimal number")
    return format(number, "f")


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ScopeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,64}$")]
DecimalText = Annotated[str, BeforeValidator(_decimal)]
Seconds = Annotated[int, Field(ge=0, lt=2**53)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QueryRequest(_Request):
    """The body of `POST /admin/v1/queries`."""

    name: Name
    sql: Annotated[str, Field(max_length=SQL_MAX)]
    registry: Annotated[str, Field(max_length=REGISTRY_MAX)] | dict[str, Any]
    epsilon: DecimalText
    delta: DecimalText
    scope: ScopeName
    cohort_min: Annotated[int, Field(ge=1, le=COHORT_MAX_MAX)]
    cohort_max: Annotated[int, Field(ge=1, le=COHORT_MAX_MAX)]
    rows_max: Annotated[int, Field(ge=1, le=65_535)] | None = None
    suite: int = SUITE_X25519_CHACHA20
    shard_bits: Annotated[int, Field(ge=0, le=SHARD_BITS_MAX)] = 0
    description: Annotated[str, Field(max_length=1_000)] = ""

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.cohort_min > self.cohort_max:
            raise ValueError("cohort_min is above cohort_max")
        if self.suite not in SUITES:
            raise ValueError("no such suite")
        return self


class RoundRequest(_Request):
    """The body of `POST /admin/v1/rounds`. Times are Unix seconds; what is left out is configured.

    `closes` and `duration_s` exclude each other.
    """

    query: Name
    opens: Seconds | None = None
    closes: Seconds | None = None
    duration_s: Annotated[int, Field(ge=1)] | None = None
    expires: Seconds | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.closes is not None and self.duration_s is not None:
            raise ValueError("give closes or duration_s, not both")
        return self

    def times(self, now: float, lifetimes: Lifetimes) -> tuple[int, int, int]:
        """opens, closes, expires. A round that opens now stays open for at least its duration."""
        opens = self.opens if self.opens is not None else math.floor(now)
        closes = self.closes
        if closes is None:
            start = opens if self.opens is not None else math.ceil(now)
            closes = start + (self.duration_s or lifetimes.open_s)
        expires = self.expires if self.expires is not None else closes + lifetimes.answer_s
        if not opens < closes <= expires or closes <= now:
            raise WireError("bad_time")
        return opens, closes, expires


def parse(model: type[_M], body: bytes) -> _M:
    """A request's body as a model.

    Raises:
        WireError: `bad_request`; the detail names fields and reasons and repeats no value.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
            if fault["type"] != "json_invalid"
        ]
        raise WireError("bad_request", "; ".join(faults[:5]) or "not JSON") from None


def make_query(request: QueryRequest, m: int, now: int) -> dict[str, Any]:
    """The document of a query for m helpers: what was asked, and everything a round needs of it.

    Raises:
        RuleError: `schema_refused`, `sql_refused`, `overflow`.
    """
    source = request.registry
    registry = (
        Registry.from_yaml(source) if isinstance(source, str) else Registry.from_object(source)
    )
    compiled = compile_query(
        request.sql,
        registry,
        name=request.name,
        epsilon=request.epsilon,
        delta=request.delta,
        rows_max=request.rows_max,
        today=datetime.fromtimestamp(now, UTC).date(),
    )
    try:
        noise_var = noise_var_for(compiled.l2sq, float(request.epsilon), float(request.delta))
    except ValueError as error:
        raise RuleError("sql_refused", str(error)) from None
    width = compiled.width(request.cohort_max, noise_var, m)
    return {
        "name": request.name,
        "description": request.description,
        "sql": request.sql,
        "words": explain(compiled.parsed, helpers=m, cohort_min=request.cohort_min),
        "epsilon": request.epsilon,
        "delta": request.delta,
        "scope": request.scope,
        "cohort_min": request.cohort_min,
        "cohort_max": request.cohort_max,
        "rows_max": compiled.parsed.rows_max,
        "suite": request.suite,
        "shard_bits": request.shard_bits,
        "slots": compiled.slots,
        "width": width,
        "linf": compiled.linf,
        "l2sq": compiled.l2sq,
        "noise_var": noise_var,
        "rho_units": rho_units(compiled.l2sq, noise_var),
        "report_bytes": 49 + compiled.slots * width // 8,
        "plan_bytes": compiled.plan_bytes.decode(),
        "created": now,
        "expiry": _expiry_object(compiled.expiry),
    }


def _expiry_object(expiry: Expiry | None) -> dict[str, Any] | None:
    if expiry is None:
        return None
    midnight = datetime.combine(expiry.day, time(), UTC)
    return {"at": int(midnight.timestamp()), "refusal": expiry.refusal().detail}


def refuse_expired(document: dict[str, Any], closes: int) -> None:
    """Refuses a round that would still take reports when its question may not be asked any more.

    Raises:
        RuleError: `sql_refused`, with the place in the question.
    """
    # Queries that were added before registries had days of expiry have no such field.
    expiry = document.get("expiry")
    if expiry is not None and closes > expiry["at"]:
        raise RuleError("sql_refused", expiry["refusal"])


# What the public list of queries shows of a document.
PUBLIC_FIELDS: Final = (
    "name",
    "description",
    "sql",
    "words",
    "epsilon",
    "delta",
    "scope",
    "cohort_min",
    "rows_max",
    "slots",
    "report_bytes",
    "created",
)


def public_view(document: dict[str, Any]) -> dict[str, Any]:
    """What the public list of queries shows."""
    return {name: document[name] for name in PUBLIC_FIELDS}


def admin_view(document: dict[str, Any]) -> dict[str, Any]:
    """What the admin interface shows: everything, the plan as an object's text included."""
    return {("plan" if name == "plan_bytes" else name): it for name, it in document.items()}
