"""Core time, memory and open files of every party, read from /proc while they work.

A sample is taken every second and at each `mark`, so the core time between two marks is exact to
the kernel's clock tick of 10 ms. Children count with their parent: a store that rewrites its file
does so in a child. Peak memory is the kernel's own high-water mark, which no sampling misses.
"""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

import numpy as np

_TICK: Final = os.sysconf("SC_CLK_TCK")
_MB: Final = 1_000_000


@dataclass(frozen=True)
class Sample:
    """One process at one moment: steady clock, core seconds so far, bytes, and open files."""

    at: float
    core_s: float
    rss: int
    fds: int


@dataclass(frozen=True)
class Stage:
    """What happened between two marks: wall seconds, and core seconds by party."""

    name: str
    wall_s: float
    core_s: Mapping[str, float]


class Watch:
    """Watches processes by name until `close`. The names may have several processes each."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._pids: dict[str, int] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._peaks: dict[str, int] = {}
        self._folders: dict[str, Path] = {}
        self._sizes: dict[str, list[tuple[float, int]]] = {}
        self._marks: list[tuple[str, float]] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def processes(self, pids: Mapping[str, int]) -> None:
        """Watches these too."""
        with self._lock:
            self._pids.update(pids)
        self.sample()

    def folder(self, name: str, path: Path) -> None:
        """Watches how many bytes the files of a folder take."""
        with self._lock:
            self._folders[name] = path
        self.sample()

    def mark(self, stage: str) -> None:
        """Here a stage begins, and the one before it ends."""
        self._marks.append((stage, self.sample()))

    def sample(self) -> float:
        """Takes a sample now; the moment it is ascribed to."""
        with self._lock:
            now, children = time.monotonic(), _children()
            for name, pid in self._pids.items():
                try:
                    taken, peak = _read(pid, now, children)
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended; what was seen of it stands
                self._samples.setdefault(name, []).append(taken)
                self._peaks[name] = max(peak, self._peaks.get(name, 0))
            for name, folder in self._folders.items():
                self._sizes.setdefault(name, []).append((now, bytes_in(folder)))
            return now

    def stages(self) -> list[Stage]:
        """The stages between the marks; the last mark begins none."""
        return [
            Stage(
                name,
                end - start,
                {party: self.core_s(party, start, end) for party in self._samples},
            )
            for (name, start), (_, end) in pairwise(self._marks)
        ]

    def core_s(self, name: str, start: float, end: float) -> float:
        """Core seconds of a party between two moments."""
        at, core = self.series(name, "core_s")
        before, after = np.interp([start, end], at, core)
        return float(after - before)

    @property
    def names(self) -> set[str]:
        """Parties that were seen."""
        return set(self._samples)

    @property
    def folders(self) -> set[str]:
        """Folders that are watched."""
        return set(self._folders)

    def series(self, name: str, what: str) -> tuple[list[float], list[float]]:
        """Moments and values of `core_s`, `rss` or `fds`."""
        with self._lock:
            samples = list(self._samples[name])
        return [it.at for it in samples], [float(getattr(it, what)) for it in samples]

    def sizes(self, name: str) -> tuple[list[float], list[float]]:
        """Moments and bytes of a folder."""
        with self._lock:
            found = list(self._sizes[name])
        return [at for at, _ in found], [float(size) for _, size in found]

    def peak_mb(self, name: str) -> float:
        """The most resident memory that a party ever had, in MB of a million bytes."""
        return self._peaks.get(name, 0) / _MB

    def close(self) -> None:
        """Stops watching."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            self.sample()


def core_s(pid: int, children: Mapping[int, list[int]] | None = None) -> float:
    """Core seconds of a process, its ended children and those that run."""
    running = _children() if children is None else children
    return sum(_core_of(each) for each in (pid, *running.get(pid, ())))


def _read(pid: int, now: float, children: Mapping[int, list[int]]) -> tuple[Sample, int]:
    rss = peak = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            rss = 1024 * int(line.split()[1])
        elif line.startswith("VmHWM:"):
            peak = 1024 * int(line.split()[1])
    if not rss:
        raise ProcessLookupError(pid)  # ended, and not yet buried
    fds = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - no path is needed for each
    return Sample(now, core_s(pid, children), rss, fds), peak


def _core_of(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / _TICK if fields else 0.0


def _children() -> dict[int, list[int]]:
    """The running children of every process that has any."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - as above
        if name.isdecimal() and (fields := _stat(int(name))):
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def _stat(pid: int) -> list[str]:
    """The fields from the third on; none if the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name stands in parentheses and may hold anything: fields are counted from its end.
    return stat.rpartition(")")[2].split()


def bytes_in(folder: Path) -> int:
    """What the files of a folder take; one that vanishes meanwhile takes nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def slope_per_hour(at: list[float], values: list[float]) -> float:
    """The least-squares slope of values over moments in seconds, per hour."""
    if len(at) < 2:
        return float("nan")
    return float(np.polyfit(np.array(at) - at[0], values, 1)[0]) * 3_600
