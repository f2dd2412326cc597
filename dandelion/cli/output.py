"""How commands speak: results to standard output, progress and errors to standard error."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

# Where nobody looks, lines are as long as they need to be.
_WIDE = 120
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)


class Fault(Exception):
    """An error that a command reports in one line; the process then ends with `code`."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; columns whose name starts with ">" are set flush right."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for column in columns:
        table.add_column(
            column.lstrip(">"),
            justify="right" if column[0] == ">" else "left",
            no_wrap=len(columns) > 6,
        )
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        out.print(f"{name:<{width}}  {value}", markup=False, soft_wrap=True)


def when(seconds: object) -> str:
    """Unix seconds as UTC."""
    if not isinstance(seconds, int | float):
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class Steps:
    """Progress of a command with several stages; silent where nobody looks."""

    def __init__(self, progress: Progress, seconds: dict[str, float]) -> None:
        self._progress = progress
        self.seconds = seconds

    @contextmanager
    def step(self, name: str, title: str, total: int | None = None) -> Iterator["Step"]:
        """One stage: a bar if `total` is known, else a spinner. Its seconds are kept under
        `name`.
        """
        task = self._progress.add_task(title, total=total, count="")
        step = Step(self._progress, task)
        try:
            yield step
        finally:
            self._progress.update(task, total=total or 1, completed=step.done if total else 1)
            self._progress.stop_task(task)
            elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed
            self.seconds[name] = self.seconds.get(name, 0.0) + round(elapsed or 0.0, 3)


class Step:
    """A stage under way."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self.done = 0

    def set(self, done: int) -> None:
        """So much is done in all."""
        self.done = done
        self._progress.update(self._task, completed=done, count=f"{done:,}")


@contextmanager
def steps(*, quiet: bool = False) -> Iterator[Steps]:
    """Bars on standard error for the stages of a command.

    Where standard error is no terminal, finished stages are printed as lines instead.
    """
    progress = Progress(
        SpinnerColumn(finished_text="[green]\u2713"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )
    with progress:
        yield Steps(progress, {})
