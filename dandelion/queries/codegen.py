"""Types of a registry's events, so that a misspelt name does not compile (docs/registry.md).

`typescript` is for pages that use the browser package, `python` for programs that use `client_py`.
Descriptions become comments. Both are pure functions of the registry: the same registry gives the
same bytes, so what they write can be committed and compared.

Leaves out: checks while the program runs; the clients make them if they are given the registry.
"""

import json
import keyword
from collections.abc import Iterator
from typing import Final

from dandelion.queries.schema import CategoryColumn, Column, EventSchema, NumberColumn, Registry

_WIDTH: Final = 100
_MADE: Final = "Made by `dandelion registry codegen {}`. Do not edit: change the registry instead."


def typescript(registry: Registry) -> str:
    """A TypeScript module: the type `Events`, the value `registry`, and `typed`."""
    return "\n".join([*_typescript(registry), ""])


def python(registry: Registry) -> str:
    """A Python module: one TypedDict for each event, and the class `Recorder`."""
    return "\n".join([*_python(registry), ""])


def _typescript(registry: Registry) -> Iterator[str]:
    yield f"// {_MADE.format('--ts')}"
    yield ""
    yield "/** Every declared event and what a row of it may hold. An absent column is null. */"
    yield "export type Events = {"
    for name, event in registry.events.items():
        yield from _ts_comment(event.description, "  ")
        yield f"  readonly {name}: {{"
        for column_name, column in event.columns.items():
            yield from _ts_comment(_about(column), "    ")
            yield from _ts_union(f"    readonly {column_name}?: ", _ts_types(column))
        yield "  };"
    yield "};"
    yield ""
    yield "export type EventName = keyof Events;"
    yield ""
    yield "/** Declared names, as the option `registry` takes them. */"
    yield "export const registry = {"
    yield "  events: {"
    for name, event in registry.events.items():
        yield f"    {name}: {{"
        yield "      columns: {"
        yield from (f"        {column}: {{}}," for column in event.columns)
        yield "      },"
        yield "    },"
    yield "  },"
    yield "} as const;"
    yield ""
    yield "type Row = Readonly<Record<string, string | number | null>>;"
    yield ""
    yield "/** `record` of a client, for declared events and columns only. */"
    yield "export function typed<Result>("
    yield "  record: (event: string, fields: Row) => Result,"
    yield "): <Name extends EventName>(event: Name, fields: Events[Name]) => Result {"
    yield "  return (event, fields) => record(event, fields as Row);"
    yield "}"


def _ts_types(column: Column) -> list[str]:
    if isinstance(column, NumberColumn):
        return ["number", "null"]
    # JSON with escapes only is also a string of JavaScript.
    return [*map(json.dumps, column.values), "null"]


def _ts_union(head: str, types: list[str]) -> Iterator[str]:
    """A union on one line, or one member on each."""
    line = f"{head}{' | '.join(types)};"
    if len(line) <= _WIDTH:
        yield line
        return
    inner = " " * (len(head) - len(head.lstrip()) + 2)
    yield head.rstrip()
    yield from (f"{inner}| {member}" for member in types[:-1])
    yield f"{inner}| {types[-1]};"


def _ts_comment(text: str, indent: str) -> Iterator[str]:
    if said := _plain(text).replace("*/", "* /"):
        yield f"{indent}/** {said} */"


def _python(registry: Registry) -> Iterator[str]:
    names = _class_names(registry)
    events = registry.events.items()
    yield f'"""{_MADE.format("--py")}"""'
    yield ""
    yield "from collections.abc import Callable, Mapping"
    if any(isinstance(c, CategoryColumn) for _, event in events for c in event.columns.values()):
        yield "from typing import Literal, TypeAlias, TypedDict"
    else:
        yield "from typing import TypeAlias, TypedDict"
    yield ""
    yield "Number: TypeAlias = int | float"
    for name, event in events:
        yield ""
        yield ""
        yield from _py_class(names[name], event)
    yield ""
    yield ""
    yield "class Recorder:"
    yield '    """Records declared events and columns only. `at` is Unix seconds."""'
    yield ""
    record = "Callable[[str, Mapping[str, object], int], object]"
    yield f"    def __init__(self, record: {record}) -> None:"
    yield "        self._record = record"
    for name, event in events:
        yield ""
        yield f"    def {_identifier(name)}(self, fields: {names[name]}, at: int) -> None:"
        yield from _py_comment(event.description, "        ")
        yield f'        self._record("{name}", fields, at)'


def _py_class(name: str, event: EventSchema) -> Iterator[str]:
    """A class, or a call where a column has the name of a keyword."""
    yield from _py_comment(event.description, "")
    called = any(keyword.iskeyword(column) for column in event.columns)
    if called:
        yield f"{name} = TypedDict("
        yield f'    "{name}",'
        yield "    {"
    else:
        yield f"class {name}(TypedDict, total=False):"
    indent = " " * (8 if called else 4)
    for column_name, column in event.columns.items():
        yield from _py_comment(_about(column), indent)
        head = f'{indent}"{column_name}": ' if called else f"{indent}{column_name}: "
        yield from _py_type(head, column, "," if called else "")
    if called:
        yield "    },"
        yield "    total=False,"
        yield ")"


def _py_type(head: str, column: Column, tail: str) -> Iterator[str]:
    if isinstance(column, NumberColumn):
        yield f"{head}Number | None{tail}"
        return
    values = [*map(_py_string, column.values), "None"]
    line = f"{head}Literal[{', '.join(values)}]{tail}"
    if len(line) <= _WIDTH:
        yield line
        return
    indent = " " * (len(head) - len(head.lstrip()))
    yield f"{head}Literal["
    yield from (f"{indent}    {value}," for value in values)
    yield f"{indent}]{tail}"


def _py_comment(text: str, indent: str) -> Iterator[str]:
    if said := _plain(text):
        yield f"{indent}# {said}"


def _py_string(value: str) -> str:
    """A literal without anything that does not show, such as marks of direction."""
    return '"' + "".join(map(_py_character, value)) + '"'


def _py_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _class_names(registry: Registry) -> dict[str, str]:
    """`PageViewEvent` for `page_view`; a number follows where two events would share a name."""
    names: dict[str, str] = {}
    for event in registry.events:
        base = "".join(map(str.capitalize, event.split("_"))) + "Event"
        name, number = base, 2
        while name in names.values():
            name, number = f"{base}{number}", number + 1
        names[event] = name
    return names


def _identifier(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _about(column: Column) -> str:
    """What a column holds, in one line."""
    if isinstance(column, NumberColumn):
        unit = f" {column.unit}" if column.unit else ""
        bounds = f"{column.lo:,} to {column.hi:,}{unit}"
        return f"{column.description} ({bounds})" if column.description else bounds
    return column.description


def _plain(text: str) -> str:
    """One line of printable characters."""
    shown = (character if character.isprintable() else " " for character in text)
    return " ".join("".join(shown).split())
