"""A party's long-term identity: one seed in one file (docs/protocol.md section 2).

Also how a private file is written so that a crash leaves all of it or nothing. Leaves out: what the
identity signs, which is each service's own matter.
"""

import os
from pathlib import Path
from typing import Final

from dandelion.encoding import identity_of
from dandelion.params import SEED_BYTES

_FILE: Final = "identity"
_PRIVATE: Final = 0o600


class StateError(RuntimeError):
    """The state directory cannot be used; the text says why."""


def init_state(state_dir: Path) -> bytes:
    """Makes a state directory with a new identity seed in it, or keeps the one that is there.

    Returns:
        The Ed25519 identity, 32 bytes.

    Raises:
        StateError: there is an identity file that is not a seed.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / _FILE
    if not path.exists():
        # The name appears with the whole seed behind it or not at all.
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        write_private(fresh, os.urandom(SEED_BYTES))
        fresh.rename(path)
        sync_directory(state_dir)
    return identity_of(read_seed(state_dir))


def read_seed(state_dir: Path) -> bytes:
    """The identity seed, 32 bytes.

    Raises:
        StateError: there is none, it is not 32 bytes long, or others may read it.
    """
    path = state_dir / _FILE
    try:
        mode, seed = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        raise StateError(f"{path}: no identity; make one first") from None
    if len(seed) != SEED_BYTES:
        raise StateError(f"{path}: not a seed of {SEED_BYTES} bytes")
    if mode & 0o077:
        raise StateError(f"{path}: others may read it; chmod 600")
    return seed


def write_private(path: Path, data: bytes) -> None:
    """Writes a new file that only its owner may read, durably: bytes first, then the name.

    Raises:
        FileExistsError: nothing is ever overwritten.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
