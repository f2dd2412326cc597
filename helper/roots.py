"""Round roots: one small file each, outside the database (docs/protocol.md sections 4.1, 11.3).

A root is the only secret of a round. Its file's *name* says what the root may serve, so that a
change of state is one atomic rename and the 32 bytes are written once and overwritten once:

    <mask key>.made.<Unix time>                         has signed nothing
    <mask key>.<ctx>.<expires>.<answered shards>        marked: serves this ctx and no other

The last part is a bit mask in hexadecimal. It only ever gains bits, after the answer of that shard
is durable and before anyone can fetch it: a database restored to a time before that answer meets a
root that knows better. `expires` stands there too, so a root dies in time even if its signing
record is lost.

Every change is durable when the method returns: file, then directory. All methods block; they run
on the state thread (`store`). Leaves out: when to do what (`signing`, `answers`, `keeper`).
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dandelion.errors import RuleError
from dandelion.params import SEED_BYTES
from dandelion.schemes.oneshot import round_keys
from dandelion.service.identity import sync_directory, write_private

_UNUSED: Final = re.compile(r"([0-9a-f]{64})\.made\.([0-9]{1,16})")
_MARKED: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{64})\.([0-9]{1,16})\.([0-9a-f]{1,64})")


@dataclass(frozen=True)
class Unused:
    """A root that has signed nothing. `made_at` in Unix seconds."""

    mask_key: bytes
    made_at: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.mask_key.hex()}.made.{self.made_at}"


@dataclass(frozen=True)
class Marked:
    """A root that serves one ctx until `expires`; bit k of `answered` is shard k."""

    mask_key: bytes
    ctx: bytes
    expires: int
    answered: int = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.mask_key.hex()}.{self.ctx.hex()}.{self.expires}.{self.answered:x}"

    def has_answered(self, shard: int) -> bool:
        """Whether an answer for this shard has left, or was about to."""
        return bool(self.answered >> shard & 1)


Root = Unused | Marked


class Roots:
    """The directory of round roots."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)
        self._directory = directory

    def make(self, now: int) -> bytes:
        """Draws a root and keeps it. Returns its mask key, 32 bytes."""
        secret = os.urandom(SEED_BYTES)
        _, mask_key = round_keys(secret)
        write_private(self._directory / Unused(mask_key, now).name, secret)
        return mask_key

    def unused(self) -> list[Unused]:
        """Roots that have signed nothing."""
        return [root for root in self._all() if isinstance(root, Unused)]

    def marked(self) -> list[Marked]:
        """Roots that serve a round."""
        return [root for root in self._all() if isinstance(root, Marked)]

    def of_round(self, mask_key: bytes, ctx: bytes) -> Marked | None:
        """The root that serves this round under this mask key."""
        for root in self.marked():
            if root.mask_key == mask_key and root.ctx == ctx:
                return root
        return None

    def mark(self, root: Unused, ctx: bytes, expires: int) -> Marked:
        """Binds an unused root to a ctx, for ever.

        Raises:
            OSError: also when the root is no longer there, unused.
        """
        marked = Marked(root.mask_key, ctx, expires)
        self._rename(root, marked)
        return marked

    def note_answered(self, root: Marked, shards: int) -> Marked:
        """Adds shards (a bit mask) to those that the root has answered for."""
        noted = replace(root, answered=root.answered | shards)
        if noted != root:
            self._rename(root, noted)
        return noted

    def read(self, root: Marked) -> bytes:
        """The 32 secret bytes.

        Raises:
            RuleError: `key_gone` if the file is not the root of its mask key, for instance because
                its erasure was interrupted.
        """
        try:
            secret = (self._directory / root.name).read_bytes()
        except FileNotFoundError:
            raise RuleError("key_gone") from None
        if len(secret) != SEED_BYTES or round_keys(secret)[1] != root.mask_key:
            raise RuleError("key_gone")
        return secret

    def erase(self, root: Root) -> None:
        """Overwrites the bytes, then removes the name.

        The overwriting reaches the same blocks on file systems that write in place; on others it
        costs nothing, and encryption of the disk must do the rest.
        """
        path = self._directory / root.name
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, bytes(SEED_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()
        sync_directory(self._directory)

    def _all(self) -> list[Root]:
        # The directory is read anew each time: it, and not a memory of it, is what a restore
        # changes.
        return [root for path in sorted(self._directory.iterdir()) if (root := _parse(path.name))]

    def _rename(self, old: Root, new: Marked) -> None:
        (self._directory / old.name).rename(self._directory / new.name)
        sync_directory(self._directory)


def _parse(name: str) -> Root | None:
    if found := _UNUSED.fullmatch(name):
        mask_key, made_at = found.groups()
        return Unused(bytes.fromhex(mask_key), int(made_at))
    if found := _MARKED.fullmatch(name):
        mask_key, ctx, expires, answered = found.groups()
        return Marked(bytes.fromhex(mask_key), bytes.fromhex(ctx), int(expires), int(answered, 16))
    return None
