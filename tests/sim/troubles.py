"""A disk with troubles: the process ends after any change of it, or any change of it fails.

Changes are those of the helper: commits of SQLite, and files that are written, renamed, removed.
"""

import errno
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pytest

T = TypeVar("T")
Mode = Literal["", "crash", "failure"]


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Trouble:
    """What happens at the `left`-th change of the disk from now: `mode` says which, if any.

    A crash comes after a change. A failure comes before it, or after it in the place of the news
    that it is durable; of a commit it comes before.
    """

    mode: Mode = ""
    left: int = 0
    come: bool = False
    changes: int = 0

    def before(self, error: Exception) -> None:
        """A change is about to be made."""
        self.changes += 1
        if self.mode == "failure":
            self._count(error)

    def after(self, error: Exception | None = None) -> None:
        """A change has been made."""
        self.changes += 1
        if self.mode == "crash" or (self.mode == "failure" and error is not None):
            self._count(error or Crash())

    def _count(self, error: BaseException) -> None:
        if self.left == 0 and not self.come:
            self.come = True
            raise Crash if self.mode == "crash" else error
        self.left -= 1


def connection_type(trouble: Callable[[], Trouble]) -> type[sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        """Has its troubles where something becomes durable."""

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql == "COMMIT":
                trouble().before(sqlite3.OperationalError("disk I/O error"))
            cursor = super().execute(sql, *args)
            if sql == "COMMIT" or (cursor.rowcount > 0 and not self.in_transaction):
                trouble().after()
            return cursor

    return Connection


def _failing(trouble: Callable[[], Trouble], change: Callable[..., T]) -> Callable[..., T]:
    """A system call that changes the disk, unless the disk fails."""

    def call(*args: Any) -> T:
        trouble().before(OSError(errno.EIO, "failed"))
        return change(*args)

    return call


def patch_calls(patch: pytest.MonkeyPatch, trouble: Callable[[], Trouble]) -> None:
    """System calls that have troubles. `fsync` only waits for what has been changed."""
    for name in ("write", "rename", "unlink"):
        patch.setattr(os, name, _failing(trouble, getattr(os, name)))
    patch.setattr(os, "fsync", lambda _: trouble().after(OSError(errno.EIO, "failed")))
