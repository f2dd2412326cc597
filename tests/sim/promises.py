"""Acknowledgements that no file beside the store remembers.

An anchor is written once a second. What a process has acknowledged since, and nobody but the store
knew when the process died, a store may lose unnoticed (collector/anchors.py says so). This watches
which rounds that concerns, so that a seed is not blamed for it, and counts how often it occurs.
"""

from pathlib import Path
from typing import Any

from collector import anchors
from collector.anchors import AnchorFile
from collector.store import Epoch, EpochMeta, Lane
from tests.sim.loop import PROCESS, Process

_NOTE = AnchorFile.note
_REPLACE = anchors._replace


class Promises:
    """What each process has acknowledged, and how much of it is in its file."""

    def __init__(self) -> None:
        self._made: dict[Process, dict[tuple[Lane, Epoch], int]] = {}
        self._kept: dict[Process, dict[tuple[Lane, Epoch], int]] = {}

    def watch(self) -> None:
        """Takes note of every acknowledgement from now on."""

        def note(file: AnchorFile, lane: Lane, meta: EpochMeta) -> None:
            self._made.setdefault(PROCESS.get(), {})[lane, meta.epoch] = meta.seq
            _NOTE(file, lane, meta)

        def replace(path: Path, text: str) -> None:
            _REPLACE(path, text)
            found = [anchors._decode(line) for line in text.splitlines()]
            kept = self._kept.setdefault(PROCESS.get(), {})
            # What was dropped belongs to rounds whose set is fixed.
            kept.update({(it.lane, it.meta.epoch): _seq(it) for it in found})

        owner: Any = AnchorFile
        owner.note = note
        anchors._replace = replace

    def unkept(self) -> set[bytes]:
        """Ids of rounds in which a process died that had acknowledged more than its file says."""
        return {
            lane.round_id
            for process, made in self._made.items()
            if not process.alive
            for (lane, epoch), seq in made.items()
            if seq > self._kept.get(process, {}).get((lane, epoch), 0)
        }


def _seq(anchor: anchors.Anchor) -> int:
    return 1 << 53 if anchor.lost else anchor.meta.seq
