"""`python -m tests.faults.mutants NAME --config FILE` runs a collector that is broken on purpose.

Controls: a driver of faults that does not catch these proves nothing. The product cannot reach
this module; everything but the one broken step is the product's own code.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from collector import __main__ as command
from collector import app
from collector.committer import LaneCommitter, Outcome, Tell
from collector.redis_store import RedisStore
from collector.store import CommitResult, Entry, Epoch, Lane, StoreUnavailable


def ack_before_commit() -> None:
    """Reports are acknowledged when they are queued, not when they are stored."""
    submit, offer = LaneCommitter.submit, LaneCommitter.offer
    under_way: set[asyncio.Task[Outcome]] = set()

    async def early(self: LaneCommitter, *args: Any) -> Outcome:
        task = asyncio.create_task(submit(self, *args))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(0)
        return Outcome.ACCEPTED

    def offered_early(self: LaneCommitter, entry: Entry, body: bytes, tell: Tell) -> bool:
        taken = offer(self, entry, body, lambda _: None)
        if taken:
            asyncio.get_running_loop().call_soon(tell, Outcome.ACCEPTED)
        return taken

    LaneCommitter.submit = early  # type: ignore[method-assign,assignment]
    LaneCommitter.offer = offered_early  # type: ignore[method-assign]


def fresh_seq() -> None:
    """A commit whose outcome is unknown is repeated under the next sequence number."""
    commit = RedisStore.commit
    ahead: Counter[tuple[Lane, Epoch]] = Counter()

    async def renumbered(
        self: RedisStore,
        lane: Lane,
        epoch: Epoch,
        seq: int,
        entries: Sequence[Entry],
        total: bytes,
    ) -> CommitResult:
        try:
            return await commit(self, lane, epoch, seq + ahead[lane, epoch], entries, total)
        except StoreUnavailable:
            ahead[lane, epoch] += 1
            raise

    RedisStore.commit = renumbered  # type: ignore[method-assign]


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    "ack-before-commit": ack_before_commit,
    "fresh-seq": fresh_seq,
}


def main() -> int:
    """Breaks the collector, then runs its command; returns the exit status."""
    name = sys.argv.pop(1)
    MUTANTS[name]()
    words = app.worker_command

    def broken_too(config_path: Path, number: int, port: int) -> list[str]:
        _, _, module, *options = words(config_path, number, port)
        assert module == "collector"
        return [sys.executable, "-m", "tests.faults.mutants", name, *options]

    app.worker_command = broken_too
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
