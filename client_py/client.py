"""`Client.contribute`: the duties of docs/protocol.md section 14, in their order.

    1 pins, 2 floors          admit.admit
    3 taking part             a coin, once per round; whoever takes part sends exactly one report
    4 plan, 5 gate            Client._vector: a fault of either becomes zeros and is counted
    6 ledger, 7 mask, store   ClientStore.commit, one transaction
    7 send                    Client._deliver: the stored bytes, until an answer is final

Nothing a collector does raises out of `contribute`; it shows in the receipt. Clock, sleep and
randomness are arguments.
"""

import asyncio
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from client_py.admit import Admitted, RoundCache
from client_py.config import PinnedConfig, Policy
from client_py.receipts import Outcome, Receipt
from client_py.store import Allowance, Charge, ClientStore, Pending
from client_py.transport import (
    Backoff,
    HttpTransport,
    Listed,
    Transport,
    TransportError,
    judge,
    pause,
    read_listing,
    visit,
)
from dandelion.errors import DandelionError, RuleError
from dandelion.params import SEED_BYTES
from dandelion.schemes import oneshot

# The collector's clock decides; a client's own may be off by this much before it matters.
CLOCK_SKEW_S: Final = 300


@dataclass(frozen=True)
class Patience:
    """How hard one call of `contribute` tries before it leaves a report for the next call.

    Attributes:
        attempts: exchanges per report and call.
        wait_max_s: the longest single wait; a collector that asks for more is left alone.
        step_s: first sends are made at whole multiples of this many seconds after the visit
            began, because the time that a plan takes depends on the data. 0 sends at once, for
            simulations.
    """

    attempts: int = 4
    wait_max_s: float = 120.0
    step_s: float = 1.0


DEFAULT_PATIENCE: Final = Patience()


class Client:
    """One client of one deployment.

    Args:
        config: whom it deals with.
        policy: how far it goes.
        store: what it keeps.
        transport: how it reaches the collector.
        cache: verdicts on envelopes; shared by the clients of a simulation.
        clock: Unix seconds.
        steady: seconds that never jump.
        random_bytes: fresh secret bytes; ephemeral keys come from here.
        rng: coins, row samples, jitter.
        sleep: waits between attempts.
    """

    def __init__(
        self,
        config: PinnedConfig,
        policy: Policy,
        store: ClientStore,
        transport: Transport,
        *,
        cache: RoundCache | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = pause,
    ) -> None:
        self.config = config
        self.policy = policy
        self.store = store
        self._transport = transport
        self._cache = cache or RoundCache()
        self._patience = patience
        self._clock = clock
        self._steady = steady
        self._random_bytes = random_bytes
        self._rng = rng or secrets.SystemRandom()
        self._sleep = sleep
        self._backoff = Backoff(self._rng)
        self._turn = asyncio.Lock()

    async def contribute(
        self, rounds: Sequence[bytes] | None = None, *, early: bool = False
    ) -> list[Receipt]:
        """Sends what is waiting, then answers open rounds that were not answered yet.

        Args:
            rounds: envelopes to answer; None asks the collector, unless the time it gave for the
                next visit has not come.
            early: ask the collector even so.

        Returns:
            one receipt per report that was tried and per round that was judged.
        """
        async with self._turn:
            receipts = await self._resume()
            if rounds is not None:
                listed = [Listed("", envelope) for envelope in rounds]
            elif early or self._now() >= self.store.next_visit(self.config.endpoint):
                try:
                    listed = list(await self._listing())
                except TransportError as error:
                    listed = []
                    receipts.append(Receipt(Outcome.UNREACHABLE, self._now(), detail=str(error)))
            else:
                listed = []
            began = self._steady()
            prepared = [self.prepare(item.envelope, called=item.round_id) for item in listed]
            if any(isinstance(made, Pending) for made in prepared):
                await self._until_next_step(began)
            for made in prepared:
                if isinstance(made, Pending):
                    receipts.append(await self._deliver(made))
                elif made is not None:
                    receipts.append(made)
            return receipts

    async def _until_next_step(self, began: float) -> None:
        """Waits for a moment that does not tell how long the plans took."""
        step = self._patience.step_s
        if step > 0:
            passed = self._steady() - began
            await self._sleep((math.floor(passed / step) + 1) * step - passed)

    def prepare(self, envelope: bytes, *, called: str = "") -> Pending | Receipt | None:
        """Steps 1 to 7 up to, not including, the first send.

        Args:
            envelope: section 3.4.
            called: the round id by which it was listed, if any; it must be the envelope's.

        Returns:
            a stored report, a receipt if none is made, None if one was made before.
        """
        now = self._now()
        try:
            admitted = self._cache.admit(envelope, self.config, self.policy)
        except DandelionError as error:
            return Receipt(
                Outcome.REFUSED, now, round_id=called, token=error.token, detail=error.detail
            )
        descriptor = admitted.descriptor
        if self.store.known(descriptor.ctx):
            return None
        if called and called != descriptor.round_id.hex():
            return self._refuse(admitted, "wrong_round", "listed under another round id")
        if now < descriptor.opens - CLOCK_SKEW_S:
            return self._refuse(admitted, "not_open")
        if now >= descriptor.closes + CLOCK_SKEW_S:
            return self._refuse(admitted, "round_closed")
        if not self._takes_part(admitted):
            return self._receipt(admitted, Outcome.SKIPPED)
        values, fault = self._vector(admitted)
        charge = Charge(
            self.config.endpoint, descriptor.scope, descriptor.ctx, descriptor.rho_units, now
        )
        allowance = Allowance(self.policy.rho_period_max, now - self.policy.period_s)
        try:
            made = self.store.commit(charge, allowance, lambda: self._make(admitted, values, fault))
        except RuleError as error:
            return self._refuse(admitted, error.token, error.detail)
        if fault and made is not None:
            self.store.count_fault(fault)
        return made

    def _takes_part(self, admitted: Admitted) -> bool:
        """Step 3: from policy and coin only."""
        if self.policy.participation >= 1:
            return True
        descriptor = admitted.descriptor
        return self.store.coin(
            descriptor.ctx,
            descriptor.expires,
            lambda: self._rng.random() < self.policy.participation,
        )

    def _vector(self, admitted: Admitted) -> tuple[oneshot.Vector, str]:
        """Steps 4 and 5: the vector, or zeros and the name of the fault."""
        descriptor = admitted.descriptor
        try:
            values = admitted.plan.execute(self.store.rows(admitted.plan.event), self._choose)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return np.zeros(descriptor.slots, dtype=np.int64), "plan"
        if not oneshot.gate(descriptor, values):
            return np.zeros(descriptor.slots, dtype=np.int64), "gate"
        return values, ""

    def _choose(self, n: int, k: int) -> Sequence[int]:
        return self._rng.sample(range(n), k)

    def _make(self, admitted: Admitted, values: oneshot.Vector, fault: str) -> Pending:
        """Step 7: the masked report. The ephemeral key lives in this function only."""
        descriptor = admitted.descriptor
        key = oneshot.EphemeralKey(self._random_bytes(SEED_BYTES))
        body = oneshot.mask(descriptor, values, key).encode()
        receipt = replace(
            self._receipt(admitted, Outcome.WAITING),
            rho_units=descriptor.rho_units,
            bytes_sent=len(body),
            fault=fault,
        )
        return Pending(
            self.config.endpoint,
            descriptor.ctx,
            descriptor.round_id,
            body,
            descriptor.expires,
            receipt,
        )

    async def _resume(self) -> list[Receipt]:
        """Sends waiting reports whose time has come; drops those whose round is over."""
        receipts = []
        for pending in self.store.pending(self.config.endpoint):
            now = self._now()
            if now >= pending.expires:
                receipts.append(self._finish(pending, Outcome.LAPSED, pending.attempts))
            elif now >= pending.not_before:
                receipts.append(await self._deliver(pending))
        return receipts

    async def _deliver(self, pending: Pending) -> Receipt:
        """Step 7: the stored bytes, again and again until an answer is final or patience ends."""
        attempts = pending.attempts
        for attempt in range(1, self._patience.attempts + 1):
            attempts += 1
            token, retry_after = "", None
            try:
                answer = await self._transport.post_report(pending.round_id, pending.body)
            except TransportError as error:
                detail = str(error)
            else:
                self._steer(answer.window)
                verdict = judge(answer)
                token, detail, retry_after = verdict.token, verdict.detail, answer.retry_after
                if verdict.outcome is not Outcome.WAITING:
                    return self._finish(pending, verdict.outcome, attempts, token, detail)
            wait = self._backoff.wait(attempt, retry_after)
            self.store.postpone(pending.ctx, attempts, int(self._now() + wait))
            if self._now() + wait >= pending.expires or wait > self._patience.wait_max_s:
                break
            if attempt < self._patience.attempts:
                await self._sleep(wait)
        return replace(
            pending.receipt, at=self._now(), attempts=attempts, token=token, detail=detail
        )

    def _finish(
        self, pending: Pending, outcome: Outcome, attempts: int, token: str = "", detail: str = ""
    ) -> Receipt:
        receipt = replace(
            pending.receipt,
            outcome=outcome,
            at=self._now(),
            attempts=attempts,
            token=token,
            detail=detail,
        )
        self.store.finish(pending.ctx, receipt)
        return receipt

    async def _listing(self) -> tuple[Listed, ...]:
        """The open rounds, with the same patience as for a report.

        Raises:
            TransportError: what the last attempt ended in.
        """
        attempt = 0
        while True:
            attempt += 1
            retry_after = None
            try:
                answer = await self._transport.get_rounds()
                self._steer(answer.window)
                retry_after = answer.retry_after
                return read_listing(answer)
            except TransportError:
                wait = self._backoff.wait(attempt, retry_after)
                if attempt >= self._patience.attempts or wait > self._patience.wait_max_s:
                    self._stay_away(int(self._now() + wait))
                    raise
            await self._sleep(wait)

    def _steer(self, window: tuple[int, int] | None) -> None:
        if window is not None:
            self.store.visit_at(self.config.endpoint, visit(window, self._clock(), self._rng))

    def _stay_away(self, until: int) -> None:
        """At least until then, or until the collector's own window."""
        later = max(self.store.next_visit(self.config.endpoint), until)
        self.store.visit_at(self.config.endpoint, later)

    def _refuse(self, admitted: Admitted, token: str, detail: str = "") -> Receipt:
        return replace(self._receipt(admitted, Outcome.REFUSED), token=token, detail=detail)

    def _receipt(self, admitted: Admitted, outcome: Outcome) -> Receipt:
        plan = admitted.plan
        return Receipt(
            outcome,
            self._now(),
            round_id=admitted.descriptor.round_id.hex(),
            query=plan.query,
            sql=plan.sql,
            scope=admitted.descriptor.scope,
            epsilon=plan.epsilon,
            delta=plan.delta,
            explanation=admitted.explanation,
        )

    def _now(self) -> int:
        return int(self._clock())


class SyncClient:
    """A `Client` for programs without an event loop: each call runs one of its own."""

    def __init__(
        self,
        config: PinnedConfig,
        policy: Policy,
        store: ClientStore,
        *,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self._config = config
        self._policy = policy
        self._store = store
        self._patience = patience
        self._cache = RoundCache()

    def contribute(
        self, rounds: Sequence[bytes] | None = None, *, early: bool = False
    ) -> list[Receipt]:
        """As `Client.contribute`.

        Raises:
            RuntimeError: called where an event loop runs already.
        """
        return asyncio.run(self._contribute(rounds, early))

    async def _contribute(self, rounds: Sequence[bytes] | None, early: bool) -> list[Receipt]:
        async with HttpTransport(self._config.endpoint) as transport:
            client = Client(
                self._config,
                self._policy,
                self._store,
                transport,
                cache=self._cache,
                patience=self._patience,
            )
            return await client.contribute(rounds, early=early)
