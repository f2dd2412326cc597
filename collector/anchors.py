"""What this process has acknowledged, in a file beside the store (docs/protocol.md 9 and 10.4).

Sequence numbers show a store that went back in time while a process was committing to it. If the
process ended as well, nobody remembers. So each process writes, at most once a second, how far each
of its epochs had come; at the seal the driver holds the store against all these files. A store that
is behind an anchor has lost acknowledged reports.

Leaves out: the last second before a process and the store are lost together.
"""

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from collector import logs
from collector.store import Epoch, EpochMeta, Lane

INTERVAL_S: Final = 1.0


@dataclass(frozen=True)
class Anchor:
    """An epoch of a lane had committed `n` reports in `seq` steps, and they were acknowledged.

    `lost` says that the process has seen the store forget some of them.
    """

    lane: Lane
    meta: EpochMeta
    lost: bool = False


class AnchorFile:
    """The anchors of one process. `note` is cheap; `run` keeps the file up to date."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.json"
        # Held as long as the process lives: nobody sweeps the file of a living process.
        self._lock = (folder / f"{name}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._anchors: dict[tuple[Lane, Epoch], Anchor] = {}
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def note(self, lane: Lane, meta: EpochMeta) -> None:
        """Remembers an acknowledged commit; written within `INTERVAL_S`."""
        self._anchors[lane, meta.epoch] = Anchor(lane, meta)
        self._changed.set()

    def note_loss(self, lane: Lane, epoch: Epoch) -> None:
        """Remembers that the store has forgotten something of this epoch."""
        self._anchors[lane, epoch] = Anchor(lane, EpochMeta(epoch, 0, 0), lost=True)
        self._changed.set()

    def forget(self, live: Collection[bytes]) -> None:
        """Drops the anchors of all rounds that are not in `live` (round ids).

        `live` must not come from the store: what an anchor shows is that the store has forgotten.
        """
        kept = {key: it for key, it in self._anchors.items() if it.lane.round_id in live}
        if len(kept) != len(self._anchors):
            self._anchors = kept
            self._changed.set()

    async def run(self) -> None:
        """Writes the file whenever it is out of date, until cancelled."""
        while True:
            await self._changed.wait()
            await self.flush()
            await asyncio.sleep(INTERVAL_S)

    async def flush(self) -> None:
        """Writes the file now; what a full or failing disk refuses stays to be written."""
        async with self._writing:
            self._changed.clear()
            text = "\n".join(_encode(anchor) for anchor in self._anchors.values())
            try:
                await asyncio.to_thread(_replace, self._path, text)
            except OSError as error:
                self._changed.set()
                logs.event("internal", error=error)

    def close(self) -> None:
        """Gives the file up: it stays, for the driver, until `sweep`."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(folder: Path, round_id: bytes) -> list[Anchor]:
    """All anchors of a round, of living and dead processes."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            found += [
                anchor
                for line in path.read_text().splitlines()
                if (anchor := _decode(line)).lane.round_id == round_id
            ]
    return found


def losses(anchors: Iterable[Anchor], lane: Lane, metas: Iterable[EpochMeta]) -> int:
    """How many anchors the store is behind of, for one lane."""
    stored = {meta.epoch: meta for meta in metas}
    count = 0
    for anchor in anchors:
        if anchor.lane != lane:
            continue
        known = stored.get(anchor.meta.epoch)
        if anchor.lost or known is None or known.seq < anchor.meta.seq or known.n < anchor.meta.n:
            count += 1
    return count


def sweep(folder: Path, live: Collection[bytes]) -> None:
    """Removes the files of dead processes that anchor no round in `live` (round ids)."""
    for lock_path in sorted(folder.glob("*.lock")):
        path = lock_path.with_suffix(".json")
        with lock_path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lines = path.read_text().splitlines() if path.exists() else []
            if any(_decode(line).lane.round_id in live for line in lines):
                continue
            path.unlink(missing_ok=True)
            lock_path.unlink()


def _encode(anchor: Anchor) -> str:
    return json.dumps(
        {
            "round": anchor.lane.round_id.hex(),
            "shard": anchor.lane.shard,
            "partition": anchor.lane.partition,
            "epoch": anchor.meta.epoch.number,
            "who": anchor.meta.epoch.who.hex(),
            "seq": anchor.meta.seq,
            "n": anchor.meta.n,
            "lost": anchor.lost,
        }
    )


def _decode(line: str) -> Anchor:
    row = json.loads(line)
    lane = Lane(bytes.fromhex(row["round"]), row["shard"], row["partition"])
    epoch = Epoch(row["epoch"], bytes.fromhex(row["who"]))
    return Anchor(lane, EpochMeta(epoch, row["seq"], row["n"]), row["lost"])


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
