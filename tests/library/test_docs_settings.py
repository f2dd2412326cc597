"""docs/operations.md lists every setting of both services, with its default and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import collector.config
import helper.config

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def section_of(annotation: object) -> type[BaseModel] | None:
    """The table of settings that an annotation stands for, alone or inside a tuple or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = (section_of(argument) for argument in get_args(annotation))
    return next((found for found in inside if found is not None), None)


def written(value: object) -> str:
    """A default as the text writes it."""
    if value is None or value == ():
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings(
    model: type[BaseModel], above: str = "", defaults: BaseModel | None = None
) -> Iterator[tuple[str, str]]:
    """(key, default) of every setting. NAME stands for a key that the operator chooses."""
    for name, field in model.model_fields.items():
        below = section_of(field.annotation)
        if field.is_required() and defaults is None:
            value: object = "required"
        else:
            value = field.default if defaults is None else getattr(defaults, name)
        if below is None:
            yield above + name, written(value)
        else:
            chosen = ".NAME" if str(field.annotation).startswith("dict") else ""
            given = value if isinstance(value, BaseModel) else None
            yield from settings(below, f"{above}{name}{chosen}.", given)


@pytest.mark.parametrize(
    "heading, model",
    [
        ("## 4. Configuration of a collector", collector.config.Config),
        ("## 5. Configuration of a helper", helper.config.Config),
    ],
)
def test_settings_are_those_of_the_text(heading: str, model: type[BaseModel]) -> None:
    """Keys and defaults of the table under the heading are those of the model."""
    section = TEXT.split(heading)[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (\S+) \|", section, re.MULTILINE)
    assert len(rows) > 10
    assert sorted(rows) == sorted(settings(model))
