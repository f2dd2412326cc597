"""Making round keys and signing descriptors (docs/protocol.md sections 11.1 to 11.3).

Order of a signature, and what a crash between two steps leaves:

    1. every rule of 11.2 holds                  nothing
    2. BEGIN; record and reservation written     nothing: the transaction rolls back
    3. the root is renamed to its ctx            a marked root without a record: refused for ever,
                                                 erased at `expires`; no signature has left
    4. COMMIT                                    a record and its root: a retry gets the signature
    5. the signature leaves

Marking before the commit, not after, because the two differ in what they cost: the first loses an
unused key, the second would hold a reservation for a round that nobody can ever answer. The same
two half-states are what a restored database and a restored root directory look like, and both are
refused (`key_gone`).

Everything here runs on the state thread, one call after the other: of two descriptors under one key
exactly one wins. Leaves out: erasing (`keeper`).
"""

from dandelion.descriptor import Descriptor, sign_descriptor
from dandelion.encoding import identity_of
from dandelion.errors import RuleError
from helper import logs
from helper.config import Config, Scope
from helper.roots import Roots, Unused
from helper.store import Signing, State, Store


class Signer:
    """The rules of section 11.2 over one store, one root directory and one identity."""

    def __init__(self, config: Config, seed: bytes, store: Store, roots: Roots) -> None:
        self._config = config
        self._seed = seed
        self._identity = identity_of(seed)
        self._collectors = config.collector_identities()
        self._rho_max = config.floors.per_round.units
        self._budgets = {name: scope.units for name, scope in config.scopes.items()}
        self._store = store
        self._roots = roots

    def make_key(self, now: int) -> bytes:
        """A new round root; returns its mask key, 32 bytes.

        Raises:
            RuleError: `too_many_keys`.
        """
        # The file comes first: a root without a row can sign nothing and dies of age.
        if len(self._roots.unused()) >= self._config.keys_unused_max:
            raise RuleError("too_many_keys")
        mask_key = self._roots.make(now)
        self._store.add_key(mask_key, now)
        return mask_key

    def require_collector(self, descriptor: Descriptor) -> None:
        """Raises `RuleError("unknown_collector")` unless the configuration names the collector."""
        if descriptor.collector not in self._collectors:
            raise RuleError("unknown_collector")

    def sign(self, descriptor: Descriptor, now: int) -> bytes:
        """This helper's signature (64 bytes) of a descriptor that its collector has signed.

        Raises:
            RuleError: the first rule of section 11.2 that does not hold; nothing has changed then.
        """
        party, mask_key = self._entry(descriptor)
        signed = self._store.signing_of_key(mask_key)
        if signed is not None:
            return self._sign_again(signed, descriptor, now)
        root = self._unused_root(mask_key)
        if now >= descriptor.expires:
            raise RuleError("expired")
        self._judge(descriptor, now)
        signing = Signing(
            descriptor,
            party,
            # A round that claims to have opened in the past is answered by today's clients.
            pays_at=max(descriptor.opens, now),
            signature=sign_descriptor(descriptor, self._seed),
        )
        self._judge_budget(signing)
        self._record(signing, root, now)
        logs.event("descriptor_signed", round_id=descriptor.round_id)
        return signing.signature

    def _entry(self, descriptor: Descriptor) -> tuple[int, bytes]:
        for party, entry in enumerate(descriptor.helpers, start=1):
            if entry.identity == self._identity:
                return party, entry.mask_key
        raise RuleError("unknown_key", "this helper is not listed")

    def _unused_root(self, mask_key: bytes) -> Unused:
        if any(root.mask_key == mask_key for root in self._roots.marked()):
            raise RuleError("key_gone", "the key is marked, its signing record is missing")
        if not self._store.knows_key(mask_key):
            raise RuleError("unknown_key")
        for root in self._roots.unused():
            if root.mask_key == mask_key:
                return root
        raise RuleError("key_gone", "the root was erased")

    def _sign_again(self, signed: Signing, descriptor: Descriptor, now: int) -> bytes:
        if signed.ctx != descriptor.ctx:
            raise RuleError("key_used")
        if now >= descriptor.expires:
            raise RuleError("expired")
        live = signed.state is State.LIVE
        if live and self._roots.of_round(signed.mask_key, signed.ctx) is None:
            raise RuleError("key_gone", "the signing record has lost its root")
        return signed.signature

    def _judge(self, d: Descriptor, now: int) -> None:
        floors, scope = self._config.floors, self._scope(d)
        if d.cohort_min < floors.cohort_min:
            raise RuleError("floor_cohort", f"at least {floors.cohort_min}")
        if d.rho_units > self._rho_max:
            raise RuleError("floor_noise", f"at most {self._rho_max} units of rho a round")
        # From whichever comes first: a root lives from now, a round from its opening.
        if d.expires - min(d.opens, now) > floors.lifetime_max_s:
            raise RuleError("floor_time", f"at most {floors.lifetime_max_s} seconds")
        if self._store.open_rounds(d.scope, now) >= scope.open_rounds_max:
            raise RuleError("too_many_rounds", f"at most {scope.open_rounds_max}")

    def _scope(self, d: Descriptor) -> Scope:
        scope = self._config.scopes.get(d.scope)
        if scope is None:
            raise RuleError("unknown_scope")
        return scope

    def _judge_budget(self, signing: Signing) -> None:
        d = signing.descriptor
        period_s = self._scope(d).period_s
        start = signing.pays_at - signing.pays_at % period_s
        spent = self._store.spent(d.scope, start, start + period_s)
        if spent + d.rho_units > self._budgets[d.scope]:
            raise RuleError("budget_exhausted")

    def _record(self, signing: Signing, root: Unused, now: int) -> None:
        with self._store.transaction():
            self._store.add_signing(signing, now)
            self._roots.mark(root, signing.ctx, signing.descriptor.expires)
