"""The events that clients keep, declared in YAML (docs/protocol.md section 15.1).

A registry names events, each with typed columns: a `category` has a closed list of values, a
`number` has integer bounds to which its values are clamped. Whatever a question may group by,
compare with or sum up is declared here, so the layout of a vector never depends on data.

Leaves out: where events are stored (`client_py`), and what may be asked about them (`sql`).
"""

from collections.abc import Hashable, Mapping
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from dandelion.errors import RuleError
from dandelion.params import INTEGER_END

Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=1000)]
Value = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Bound = Annotated[int, Field(strict=True, gt=-INTEGER_END, lt=INTEGER_END)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CategoryColumn(_Model):
    """A column that holds one of a closed list of strings."""

    kind: Literal["category"]
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=65536)]
    description: Text = ""

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values):
            raise ValueError("values are listed twice")
        return values


class NumberColumn(_Model):
    """A column that holds a number; questions see it clamped to `lo..hi`."""

    kind: Literal["number"]
    lo: Bound
    hi: Bound
    unit: Text = ""
    description: Text = ""

    @model_validator(mode="after")
    def _ordered(self) -> "NumberColumn":
        if self.lo >= self.hi:
            raise ValueError("lo must be below hi")
        return self


Column = Annotated[CategoryColumn | NumberColumn, Field(discriminator="kind")]


class EventSchema(_Model):
    """One event table: its columns by name."""

    description: Text = ""
    columns: Annotated[dict[Name, Column], Field(min_length=1)]


class Registry(_Model):
    """All events of a deployment, by name."""

    events: Annotated[dict[Name, EventSchema], Field(min_length=1)]

    @classmethod
    def from_yaml(cls, text: str) -> "Registry":
        """Reads a registry.

        Raises:
            RuleError: `schema_refused`; the detail gives the path of each fault and its reason.
        """
        try:
            document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            reason = getattr(error, "problem", None) or "not YAML"
            raise RuleError("schema_refused", f"{where}{reason}") from None
        except RecursionError:
            raise RuleError("schema_refused", "nested too deeply") from None
        return cls.from_object(document)

    @classmethod
    def from_object(cls, document: object) -> "Registry":
        """Reads a registry from what a YAML or JSON parser made of it.

        Raises:
            RuleError: `schema_refused`; the detail gives the path of each fault and its reason.
        """
        if not isinstance(document, Mapping):
            raise RuleError("schema_refused", "the document must be a mapping with the key events")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise RuleError("schema_refused", _describe(error)) from None

    @classmethod
    def example(cls) -> "Registry":
        """The registry of the demonstration: flights out of New York in 2013."""
        source = files("dandelion.queries").joinpath("examples", "flights.yaml")
        return cls.from_yaml(source.read_text(encoding="utf-8"))


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader for which a repeated key is an error instead of a silent override."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the SafeLoader refuses it below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _describe(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        # The discriminator puts the column's kind into the path, where no YAML key is.
        path = ".".join(
            str(part) for part in fault["loc"] if part not in ("category", "number", "[key]")
        )
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "union_tag_invalid":
            # The library's own words would repeat what was written.
            reason = "kind is category or number"
        if fault["type"] == "string_type":
            reason += (
                " (YAML reads bare yes, no, on, off and numbers as something else: quote them)"
            )
        faults.append(f"{path or 'document'}: {reason}")
    return "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
