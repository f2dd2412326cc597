"""The events that clients keep, declared in YAML (docs/protocol.md section 15.1, docs/registry.md).

A registry names events, each with typed columns: a `category` has a closed list of values, a
`number` has integer bounds to which its values are clamped. Whatever a question may group by,
compare with or sum up is declared here, so the layout of a vector never depends on data. Beside
that it says who answers for an event, until when it may be asked, and how many rows of a client
count.

Leaves out: where events are stored (`client_py`), what may be asked about them (`sql`), where in
the text a fault is (`registry_source`), and what is allowed but unwise (`lint`).
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dandelion.params import INTEGER_END
from dandelion.queries.parser import ROWS_MAX_MAX
from dandelion.queries.registry_source import Fault, PathPart, SchemaRefused, Source, read_source

__all__ = [
    "CategoryColumn",
    "Column",
    "EventSchema",
    "NumberColumn",
    "Registry",
    "SchemaRefused",
    "json_schema",
]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LINK: Final = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?#][^\s<>]*)?")
_LINK_CHARS_MAX: Final = 1_000


def _day(value: object) -> date:
    """A day as YAML or JSON writes it. A time of day is refused: a day ends at one time only. So is
    nothing at all, which would mean never.
    """
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError("write a day of the calendar such as 2027-06-01, or leave it out")


def _link(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LINK_CHARS_MAX or not _LINK.fullmatch(value):
        raise ValueError(
            f"write a link of at most {_LINK_CHARS_MAX} characters that begins with https://"
        )
    return value


def _unit(value: object) -> object:
    if value != "client":
        raise ValueError(
            "a report is what one client sends, and nobody can tell which clients are one person "
            "or one day of a person; write unit: client or leave it out"
        )
    return value


Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=1000)]
Value = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Bound = Annotated[int, Field(strict=True, gt=-INTEGER_END, lt=INTEGER_END)]
Day = Annotated[
    date | None, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})
]
Link = Annotated[
    str | None,
    BeforeValidator(_link),
    WithJsonSchema(
        {"type": "string", "maxLength": _LINK_CHARS_MAX, "pattern": f"^{_LINK.pattern}$"}
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Answered(_Model):
    """What an event and a column may say about themselves."""

    description: Text = ""
    """What is recorded, in plain words."""
    owner: Text = ""
    """Who answers for it."""
    expires: Day = None
    """The first day (UTC) on which it may not be asked any more. Absent: never."""
    review: Link = None
    """Where its privacy review can be read."""


class CategoryColumn(_Answered):
    """A column that holds one of a closed list of strings."""

    kind: Literal["category"]
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=65536)]
    """What it may hold; a row with any other value adds to no group."""

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError("values are listed twice; list each once")
        return values


class NumberColumn(_Answered):
    """A column that holds a number; questions see it clamped to `lo..hi`."""

    kind: Literal["number"]
    lo: Bound
    """Lower bound; lower values count as this."""
    hi: Bound
    """Upper bound; higher values count as this."""
    unit: Text = ""
    """What it is measured in."""

    @model_validator(mode="after")
    def _ordered(self) -> "NumberColumn":
        if self.lo >= self.hi:
            raise ValueError("lo must be below hi")
        return self


Column = Annotated[CategoryColumn | NumberColumn, Field(discriminator="kind")]


class EventSchema(_Answered):
    """One event table: its columns by name, and whose rows are protected together."""

    unit: Annotated[Literal["client"], BeforeValidator(_unit)] = "client"
    """Unit of protection: all rows of one client together."""
    rows_max_default: Annotated[int, Field(strict=True, ge=1, le=ROWS_MAX_MAX)] = 1
    """Rows of one client that count, for a question that does not say."""
    columns: Annotated[dict[Name, Column], Field(min_length=1)]


class Registry(_Model):
    """All events of a deployment, by name."""

    events: Annotated[dict[Name, EventSchema], Field(min_length=1)]

    @classmethod
    def from_yaml(cls, text: str) -> "Registry":
        """Reads a registry.

        Raises:
            SchemaRefused: `schema_refused`; each fault has line, column, path and reason.
        """
        return cls.from_source(read_source(text))

    @classmethod
    def from_source(cls, source: Source) -> "Registry":
        """Reads a registry whose places are known.

        Raises:
            SchemaRefused: as `from_yaml`.
        """
        return _validate(source.document, source)

    @classmethod
    def from_object(cls, document: object) -> "Registry":
        """Reads a registry from what a YAML or JSON parser made of it.

        Raises:
            SchemaRefused: `schema_refused`; each fault has path and reason.
        """
        return _validate(document, None)

    def to_object(self) -> dict[str, Any]:
        """As JSON writes it, without what is left at its default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        """As YAML; `from_yaml(registry.to_yaml()) == registry`."""
        return yaml.safe_dump(self.to_object(), sort_keys=False)

    @classmethod
    def example(cls) -> "Registry":
        """The registry of the demonstration: flights out of New York in 2013."""
        source = files("dandelion.queries").joinpath("examples", "flights.yaml")
        return cls.from_yaml(source.read_text(encoding="utf-8"))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a registry, for editors; `docs/registry.schema.json` is a copy.

    It cannot say that lo is below hi; the reader does.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Registry.model_json_schema(),
    }


def _validate(document: object, source: Source | None) -> Registry:
    if not isinstance(document, Mapping):
        raise SchemaRefused([Fault("", "the document must be a mapping with the key events")])
    try:
        return Registry.model_validate(document)
    except ValidationError as error:
        raise SchemaRefused([_fault(each, source) for each in _details(error)]) from None


def _details(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_input=False))


def _fault(fault: Mapping[str, Any], source: Source | None) -> Fault:
    location: Sequence[PathPart] = fault["loc"]
    # The discriminator puts the column's kind after the column's name, where YAML has no key.
    path = [part for depth, part in enumerate(location) if depth != 4 or location[2] != "columns"]
    of_key = path[-1:] == ["[key]"]
    path = path[:-1] if of_key else path
    reason = _reason(fault, path)
    line, column = (0, 0)
    if source is not None:
        line, column = source.place(path, key=of_key or fault["type"] == "extra_forbidden")
    return Fault(".".join(map(str, path)) or "document", reason, line, column)


def _reason(fault: Mapping[str, Any], path: Sequence[PathPart]) -> str:
    """What is wrong and what to write instead."""
    reason = str(fault["msg"]).removeprefix("Value error, ")
    match fault["type"]:
        case "union_tag_invalid":
            # The library's own words would repeat what was written.
            return "kind is category or number"
        case "union_tag_not_found":
            return "kind is missing; write kind: category or kind: number"
        case "string_type":
            hint = "YAML reads bare yes, no, on, off and numbers as something else: quote them"
            return f"{reason} ({hint})"
        case "extra_forbidden":
            return f"{reason}; known here: {_known(fault['loc'])}"
        case "int_type" | "int_from_float":
            return f"{reason}; write a whole number"
        case "string_pattern_mismatch":
            return f"{reason}; begin with a letter a-z and go on with a-z, 0-9 and _"
        case "missing":
            return f"{reason}; write {path[-1]}: and its value"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{reason}; write name: value pairs, indented"
    return reason


def _known(location: Sequence[PathPart]) -> str:
    """The keys that may stand where an unknown one does."""
    model: type[BaseModel] = Registry
    if len(location) > 4:
        model = CategoryColumn if location[4] == "category" else NumberColumn
    elif len(location) > 1:
        model = EventSchema
    return ", ".join(sorted(model.model_fields))
