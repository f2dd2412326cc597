"""What dies, and when: roots, reservations, old answers (docs/protocol.md sections 6, 11.1, 16).

`sweep` runs at start-up and every few seconds after. It is one idempotent pass that compares root
files with records, so that recovery after a crash and the passing of time are the same code.

A reservation is freed only for a round that nobody answered, by whoever erased its root. To know
after a crash that it was we who erased it, the intention is made durable first:

    1. LIVE -> FREEING      committed while the marked root is there, no shard has an answer in the
                            database and none in the root's name; from here on no answer is stored
    2. the root is erased
    3. FREEING -> FREED     together with the ledger's `free`

A LIVE record that expires without its root is LOST: the database was restored to a time before an
answer, or the root directory was lost. Its reservation stays. Nobody else's word frees anything.
"""

from typing import Final

from dandelion.privacy import ledger
from helper import logs
from helper.config import Config
from helper.roots import Marked, Root, Roots
from helper.store import Signing, State, Store

FORGET_KEYS_S: Final = 86_400


class Keeper:
    """Sweeps one store and one root directory; runs on the state thread."""

    def __init__(self, config: Config, store: Store, roots: Roots) -> None:
        self._config = config
        self._store = store
        self._roots = roots
        self._unrecorded: set[bytes] = set()

    def sweep(self, now: int) -> None:
        """Brings files and records into line with each other and with the time."""
        for signing in self._store.unsettled():
            self._settle(signing, now)
        self._sweep_marked(now)
        self._sweep_unused(now)
        self._store.forget_unsigned_keys(now - FORGET_KEYS_S)
        self._store.drop_answers(now - self._config.answers_kept_s)

    def _settle(self, signing: Signing, now: int) -> None:
        root = self._roots.of_round(signing.mask_key, signing.ctx)
        if signing.state is State.LIVE and now >= signing.descriptor.expires:
            self._expire(signing, root)
            signing = self._store.signing(signing.ctx) or signing
        if signing.state is State.FREEING:
            if root is not None:
                self._erase(root)
            with self._store.transaction():
                self._store.set_state(signing.ctx, State.FREED)
                self._store.append(ledger.FREE, signing, 0, now)
            logs.event("reservation_freed", round_id=signing.descriptor.round_id)
        elif signing.state is State.LIVE and root is not None:
            # An answer that became durable just before a crash.
            self._roots.note_answered(root, self._store.answered_shards(signing.ctx))

    def _expire(self, signing: Signing, root: Marked | None) -> None:
        if root is None:
            logs.event("root_lost", round_id=signing.descriptor.round_id)
            state = State.LOST
        elif root.answered or self._store.answered_shards(signing.ctx):
            state = State.CLOSED
        else:
            state = State.FREEING
        with self._store.transaction():
            self._store.set_state(signing.ctx, state)

    def _sweep_marked(self, now: int) -> None:
        for root in self._roots.marked():
            signing = self._store.signing(root.ctx)
            if signing is None and root.ctx not in self._unrecorded:
                self._unrecorded.add(root.ctx)
                logs.event("root_unrecorded", round_id=root.ctx[:16])
            ended = signing is not None and signing.state is not State.LIVE
            if ended or now >= root.expires:
                self._erase(root)

    def _sweep_unused(self, now: int) -> None:
        for unused in self._roots.unused():
            # With a record this is a copy from before the signature; it can serve nothing.
            signed = self._store.signing_of_key(unused.mask_key) is not None
            if signed or now >= unused.made_at + self._config.key_unused_s:
                self._erase(unused)

    def _erase(self, root: Root) -> None:
        self._roots.erase(root)
        round_id = root.ctx[:16] if isinstance(root, Marked) else None
        logs.event("root_erased", round_id=round_id)
