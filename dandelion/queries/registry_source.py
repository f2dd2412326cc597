"""A registry's YAML: what it says, and where in the text each thing stands.

Lines and columns count from 1. A mark is looked up when a path is asked for, by walking down from
the root, so that nested aliases cost nothing.

Leaves out: what a registry may say (`schema`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from dandelion.errors import RuleError

PathPart = str | int

# What PyYAML's constructors let through when a scalar is not of the type that it looks like, such
# as the date 2027-02-30 or `!!int ""`.
_NOT_THE_VALUE: Final = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, and what to write instead. Line 0 is no line at all."""

    path: str
    reason: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return place + (f"{self.path}: {self.reason}" if self.path else self.reason)


class SchemaRefused(RuleError):
    """`schema_refused` with every fault that was found."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        super().__init__("schema_refused", "; ".join(map(str, faults[:10])) + more)
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Source:
    """A document and the tree that it was read from."""

    document: object
    _root: yaml.Node | None

    def place(self, path: Sequence[PathPart], *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value at a path, or with `key` of the key that names it.

        What is not there, such as a missing key, is where the mapping is that lacks it.
        """
        node, mark = self._root, None if self._root is None else self._root.start_mark
        for part in path:
            step = _step(node, part)
            if step is None:
                break
            name, node = step
            mark = name.start_mark if key else node.start_mark
        return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def read_source(text: str) -> Source:
    """Reads one YAML document.

    Raises:
        SchemaRefused: it is not YAML, or not the part of it that a registry may use.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Source(None if root is None else loader.construct_document(root), root)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        reason = "a character that YAML does not allow; remove it"
        raise SchemaRefused([Fault("", reason, line, column)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "not YAML"
        if reason.startswith("could not determine a constructor"):
            reason = "tags and merge keys (<<) are not supported; write plain values out"
        where = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise SchemaRefused([Fault("", reason, *where)]) from None
    except yaml.YAMLError:
        raise SchemaRefused([Fault("", "not YAML")]) from None
    except RecursionError:
        raise SchemaRefused(
            [Fault("", "nested too deeply; events hold columns, no more")]
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """A SafeLoader for which a repeated key is an error instead of a silent override, and so is a
    scalar that is not what it looks like.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            return super().construct_object(node, deep)
        except _NOT_THE_VALUE:
            kind = node.tag.rpartition(":")[2]
            reason = f"not a value of the type {kind} that it looks like; quote it if it is text"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, object]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a mapping is expected here; write name: value", node.start_mark
            )
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


def _step(node: yaml.Node | None, part: PathPart) -> tuple[yaml.Node, yaml.Node] | None:
    """The nodes of the key and the value one step down."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        item = node.value[part]
        return item, item
    return None
