"""What changed between two registries, and for whom (docs/registry.md).

A change **weakens privacy** if more can be learned of a person than before, for longer, or with
less oversight. It **breaks** questions if one that could be asked is refused now, or if its answers
mean something else, so that a series of them has a seam. Everything else is named, too.

Leaves out: changes of the text that mean the same, such as the order of events.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dandelion.queries.registry_source import PathPart
from dandelion.queries.schema import CategoryColumn, Column, EventSchema, NumberColumn, Registry

_LISTED = 6


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        path: of what changed; in the new registry, or in the old one if `removed`.
        message: what changed and why it matters.
        weakens: more can be learned of a person.
        breaks: questions that could be asked are refused, or answer something else.
    """

    path: tuple[PathPart, ...]
    message: str
    weakens: bool = False
    breaks: bool = False
    removed: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """The path as text."""
        return ".".join(map(str, self.path))

    def to_object(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "path": self.name,
            "weakens": self.weakens,
            "breaks": self.breaks,
            "message": self.message,
        }


def diff(old: Registry, new: Registry) -> tuple[Change, ...]:
    """Every change from `old` to `new`; those that weaken privacy come first."""
    changes = sorted(_events(old, new), key=lambda each: (not each.weakens, not each.breaks))
    return tuple(changes)


def _events(old: Registry, new: Registry) -> Iterator[Change]:
    for name, event in old.events.items():
        path = ("events", name)
        if name in new.events:
            yield from _event(path, event, new.events[name])
        else:
            yield Change(
                path, "event removed: questions about it are refused", False, True, removed=True
            )
    for name in new.events:
        if name not in old.events:
            yield Change(("events", name), "new event: something more is recorded", True)


def _event(path: tuple[PathPart, ...], old: EventSchema, new: EventSchema) -> Iterator[Change]:
    yield from _answered(path, old, new)
    before, after = old.rows_max_default, new.rows_max_default
    if after != before:
        at = (*path, "rows_max_default")
        said = f"rows of one client that count: {before} before, {after} now"
        if after > before:
            yield Change(at, f"{said}; more of each client is in every sum", True, True)
        else:
            yield Change(at, f"{said}; less of each client is in every sum", False, True)
    for name, column in old.columns.items():
        at = (*path, "columns", name)
        if name in new.columns:
            yield from _column(at, column, new.columns[name])
        else:
            yield Change(
                at, "column removed: questions that name it are refused", False, True, removed=True
            )
    for name in new.columns:
        if name not in old.columns:
            yield Change((*path, "columns", name), "new column: something more is recorded", True)


def _answered(
    path: tuple[PathPart, ...], old: EventSchema | Column, new: EventSchema | Column
) -> Iterator[Change]:
    """Changes of what events and columns say about themselves."""
    if old.expires != new.expires:
        yield _expiry((*path, "expires"), old.expires, new.expires)
    if old.review != new.review:
        at, removed = (*path, "review"), new.review is None
        said = f"review: {old.review or 'none'} before, {new.review or 'none'} now"
        yield Change(at, said, weakens=removed, removed=removed)
    if old.owner != new.owner:
        at, removed = (*path, "owner"), not new.owner
        said = "owner removed: nobody answers for it" if removed else "another owner"
        yield Change(at, said, weakens=removed, removed=removed)
    if old.description != new.description:
        removed = not new.description
        said = "description removed" if removed else "another description"
        yield Change((*path, "description"), said, weakens=removed, removed=removed)


def _expiry(path: tuple[PathPart, ...], old: date | None, new: date | None) -> Change:
    said = f"expires: {old or 'never'} before, {new or 'never'} now"
    if new is None:
        return Change(path, f"{said}; it may be asked for ever", True, removed=True)
    if old is not None and new > old:
        return Change(path, f"{said}; it may be asked for longer", True)
    return Change(path, f"{said}; questions are refused from then on", False, True)


def _column(path: tuple[PathPart, ...], old: Column, new: Column) -> Iterator[Change]:
    yield from _answered(path, old, new)
    if isinstance(old, CategoryColumn) and isinstance(new, CategoryColumn):
        yield from _values((*path, "values"), old.values, new.values)
    elif isinstance(old, NumberColumn) and isinstance(new, NumberColumn):
        yield from _bounds(path, old, new)
    else:
        yield Change(
            (*path, "kind"),
            f"kind: {old.kind} before, {new.kind} now; something else is recorded",
            True,
            True,
        )


def _values(
    path: tuple[PathPart, ...], old: tuple[str, ...], new: tuple[str, ...]
) -> Iterator[Change]:
    added = [value for value in new if value not in set(old)]
    gone = [value for value in old if value not in set(new)]
    if added:
        yield Change(path, f"new values, so smaller groups: {_listing(added)}", True)
    if gone:
        said = f"values removed: {_listing(gone)}; conditions that name them are refused, and rows "
        yield Change(path, f"{said}that hold them are left out of groups", False, True)
    if not added and not gone and old != new:
        yield Change(path, "values in another order")


def _bounds(path: tuple[PathPart, ...], old: NumberColumn, new: NumberColumn) -> Iterator[Change]:
    if old.unit != new.unit:
        yield Change(
            (*path, "unit"),
            f"unit: {old.unit or 'none'} before, {new.unit or 'none'} now; bounds and answers mean "
            "something else",
            True,
            True,
            removed=not new.unit,
        )
    for name, wider in (("lo", new.lo < old.lo), ("hi", new.hi > old.hi)):
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        why = (
            "more detail of extreme values, and one row moves a sum further"
            if wider
            else "values are clamped earlier"
        )
        yield Change(
            (*path, name),
            f"{name}: {before:,} before, {after:,} now; {why}; answers before and after do not "
            "compare, and bins have to divide another range",
            wider,
            True,
        )


def _listing(values: list[str]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(values[:_LISTED]) + more
