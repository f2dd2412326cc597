"""The preloaded library of `shim.c` and its controls: a slow or full disk and a wrong clock."""

import mmap
import os
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("shim.c")
_FIELDS: Final = ("clock_shift_ns", "sync_delay_us", "room", "syncs_delayed", "refused")
_FOLDER_AT: Final = 8 * len(_FIELDS)
_FOLDER_BYTES: Final = 1_024
_BYTES: Final = _FOLDER_AT + _FOLDER_BYTES


def build(folder: Path) -> Path:
    """Compiles the library into `folder`.

    Raises:
        RuntimeError: the compiler refuses; it is named in CC, or is cc.
    """
    library = folder / "shim.so"
    command = [os.environ.get("CC", "cc"), "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [str(_SOURCE), "-o", str(library), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return library


class Control:
    """The controls of one process, changed while it runs. Nothing is wrong at first."""

    def __init__(self, path: Path, disk: Path) -> None:
        """`path` is the file shared with the process, `disk` the folder that may become full."""
        name = str(disk.resolve()).encode()
        if len(name) >= _FOLDER_BYTES:
            raise ValueError("too long a path")
        path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)
        self._memory[_FOLDER_AT : _FOLDER_AT + len(name)] = name
        self._path = path
        self.heal()

    def environment(self, library: Path) -> dict[str, str]:
        """What the process must find in its environment."""
        return {"LD_PRELOAD": str(library), "FAULTS_CONTROL": str(self._path)}

    def shift_clock(self, seconds: float) -> None:
        """Sets the wall clock so much ahead of the machine's."""
        self._set("clock_shift_ns", int(seconds * 1e9))

    def slow_syncs(self, seconds: float) -> None:
        """Makes every sync take so much longer."""
        self._set("sync_delay_us", int(seconds * 1e6))

    def fill_disk(self, room: int = 0) -> None:
        """Leaves room for so many bytes below the folder."""
        self._set("room", room)

    def heal(self) -> None:
        """Clock, disk and syncs are right again."""
        self.shift_clock(0)
        self.slow_syncs(0)
        self._set("room", -1)

    @property
    def syncs_delayed(self) -> int:
        """How many syncs were slowed down so far."""
        return self._get("syncs_delayed")

    @property
    def refused(self) -> int:
        """How many writes and syncs found the disk full so far."""
        return self._get("refused")

    def close(self) -> None:
        """Lets go of the shared memory."""
        self._memory.close()

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._memory, 8 * _FIELDS.index(name), value)

    def _get(self, name: str) -> int:
        value: int = struct.unpack_from("=q", self._memory, 8 * _FIELDS.index(name))[0]
        return value
