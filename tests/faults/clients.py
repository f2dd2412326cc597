"""The clients of one round: each sends the same bytes until it hears a final answer."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from client_py.fleet import FleetTransport
from client_py.receipts import Outcome
from client_py.transport import TransportError, judge
from dandelion.descriptor import Descriptor
from dandelion.schemes import oneshot
from tests.oracle_membership import one_hot

# Longer than the collector takes to say that it cannot tell.
_TIMEOUT_S: Final = 6.0
_PAUSE_S: Final = (0.05, 0.4)
MANY: Final = 1_000_000


@dataclass
class Member:
    """A client: its report, and what it was told.

    Attributes:
        number: its coordinate.
        epk: its report key.
        submitted: it has sent its report, whether or not anybody heard it.
        acked: it was told that its report counts.
        refusal: the token that ended its attempts, if one did.
        lost: attempts that ended without an answer, in the words of the transport.
    """

    number: int
    epk: bytes
    body: bytes = field(repr=False)
    submitted: bool = False
    acked: bool = False
    refusal: str = ""
    lost: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it has heard a final answer."""
        return self.acked or bool(self.refusal)


class Crowd:
    """Everybody who was asked to take part in one round."""

    def __init__(
        self, d: Descriptor, count: int, rng: random.Random, *, attempts: int = MANY
    ) -> None:
        """`attempts` bounds how often each client tries."""
        self.d = d
        self.members = [_member(d, number) for number in range(count)]
        self.answers: Counter[str] = Counter()
        self.attempts = attempts
        self._rng = rng

    def numbers(self, choose: Callable[[Member], bool]) -> set[int]:
        """The members that are chosen."""
        return {member.number for member in self.members if choose(member)}

    @property
    def waiting(self) -> set[int]:
        """Who heard no final answer and tries no more, although it should."""
        return self.numbers(lambda member: not member.done) if self.attempts == MANY else set()

    @property
    def acked(self) -> set[int]:
        """Who was told yes."""
        return self.numbers(lambda member: member.acked)

    async def run(self, endpoint: str, spread_s: float, connections: int = 64) -> None:
        """All clients start within `spread_s` seconds and send until they are done."""
        pool: asyncio.Queue[FleetTransport] = asyncio.Queue()
        transports = [FleetTransport(endpoint, timeout_s=_TIMEOUT_S) for _ in range(connections)]
        for transport in transports:
            pool.put_nowait(transport)
        try:
            async with asyncio.TaskGroup() as group:
                for member in self.members:
                    group.create_task(self._send(member, pool, self._rng.uniform(0, spread_s)))
        finally:
            for transport in transports:
                transport.close()

    async def repeat(self, endpoint: str, count: int) -> list[str]:
        """Some clients send once more, long after; what contradicts what they heard before."""
        transport, found = FleetTransport(endpoint, timeout_s=_TIMEOUT_S), []
        chosen = [it for it in self.members if it.done]
        for member in self._rng.sample(chosen, min(count, len(chosen))):
            for _ in range(20):
                try:
                    verdict = judge(await transport.post_report(self.d.round_id, member.body))
                except TransportError:
                    await asyncio.sleep(0.2)
                    continue
                if verdict.outcome is not Outcome.WAITING:
                    break
                await asyncio.sleep(0.2)
            else:
                found.append(f"client {member.number} gets no final answer any more")
                continue
            if member.acked and not verdict.outcome.delivered:
                found.append(f"client {member.number} was told yes, now {verdict.token}")
            if member.refusal and verdict.outcome.delivered:
                found.append(f"client {member.number} was told {member.refusal}, now yes")
        transport.close()
        return found

    async def _send(
        self, member: Member, pool: "asyncio.Queue[FleetTransport]", after: float
    ) -> None:
        await asyncio.sleep(after)
        for _ in range(self.attempts):
            transport = await pool.get()
            try:
                member.submitted = True
                verdict = judge(await transport.post_report(self.d.round_id, member.body))
            except TransportError as error:
                member.lost.append(str(error))
                self.answers[str(error)] += 1
            else:
                self.answers[verdict.token or verdict.outcome] += 1
                if verdict.outcome.delivered:
                    member.acked = True
                    return
                if verdict.outcome is Outcome.REJECTED:
                    member.refusal = verdict.token
                    return
            finally:
                pool.put_nowait(transport)
            await asyncio.sleep(self._rng.uniform(*_PAUSE_S))


def _member(d: Descriptor, number: int) -> Member:
    seed = hashlib.sha256(b"client %d of " % number + d.ctx).digest()
    key = oneshot.EphemeralKey(seed)
    report = oneshot.mask(d, one_hot(d.slots, number, d.linf), key)
    return Member(number, report.epk, report.encode())
