"""Every order of events, and every moment of a crash, of one helper and one round; breadth first.

From each machine every step is taken (helper_steps.py), and after each step the invariants compare
the machine with what has left it so far.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dandelion.descriptor import Descriptor
from dandelion.privacy import ledger
from helper.store import State
from tests.sim.helper_steps import EXPIRED, HelperSteps, Machine, Step


class Violation(AssertionError):
    """An invariant does not hold; the message is the way there."""


@dataclass(frozen=True)
class Node:
    """A machine, what has left it so far, and an old copy of its disk."""

    now: Machine
    left: frozenset[tuple[int, bytes]] = frozenset()
    copy: Machine | None = None
    restored: frozenset[str] = frozenset()
    path: tuple[str, ...] = field(default=(), compare=False)

    def then(self, step: str, **changes: Any) -> "Node":
        """The node that follows."""
        return replace(self, path=(*self.path, step), **changes)


@dataclass(frozen=True)
class Outcome:
    """Nodes and machines there were, the states of rounds among them, how often which word came."""

    nodes: int
    machines: int
    states: set[str]
    heard: Counter[str]


class Explorer:
    """One round of one helper.

    Args:
        folder: where the root files are.
        shards: a power of two.
        asks: shard and name of the sets that are asked for; "A" and "B" of a shard differ.
        copies: what of an old copy may be put back: "database", "roots".
    """

    def __init__(
        self,
        folder: Path,
        *,
        shards: int = 1,
        asks: Sequence[tuple[int, str]] = ((0, "A"), (0, "B")),
        copies: Sequence[str] = ("database",),
    ) -> None:
        self.helper = HelperSteps(folder, shards, asks)
        self._copies = tuple(copies)
        self._steps: dict[Machine, list[Step]] = {}

    def close(self) -> None:
        """Lets go of the helper."""
        self.helper.close()

    def run(self) -> Outcome:
        """Visits every node.

        Raises:
            Violation: with a shortest way to it.
        """
        first = Node(self.helper.down())
        seen = {first}
        frontier = [first]
        with self.helper.patched():
            while frontier:
                following = []
                for node in frontier:
                    for after in self._successors(node):
                        _check(after, self.helper.descriptor)
                        if after not in seen:
                            seen.add(after)
                            following.append(after)
                frontier = following
        states = {state for machine in self._steps for _, state in machine.rows[1]}
        return Outcome(len(seen), len(self._steps), states, self.helper.heard)

    def _successors(self, node: Node) -> Iterator[Node]:
        if node.now not in self._steps:
            self._steps[node.now] = list(self.helper.steps_of(node.now))
        for step in self._steps[node.now]:
            left = node.left | {step.answer} if step.answer else node.left
            yield node.then(step.name, now=step.after, left=left)
        if node.copy is None and not node.restored and self._copies:
            yield node.then("copy", copy=self._copy(node.now))
        if node.copy is None or node.now.running:
            return
        for what in self._copies:
            if what not in node.restored:
                now = _restored(node.now, node.copy, what)
                yield node.then(f"restore {what}", now=now, restored=node.restored | {what})

    def _copy(self, machine: Machine) -> Machine:
        """Of a machine what can be put back; copies that differ elsewhere are one."""
        roots = machine.roots if "roots" in self._copies else ()
        return Machine(machine.disk, machine.rows, roots)


def _restored(now: Machine, copy: Machine, what: str) -> Machine:
    disk = replace(now.disk, **{what: getattr(copy.disk, what)})
    if what == "database":
        return replace(now, disk=disk, rows=copy.rows)
    return replace(now, disk=disk, roots=copy.roots)


def _check(node: Node, descriptor: Descriptor) -> None:
    """The invariants, of a node and what has left its helper."""
    signings, entries = node.now.rows[1], node.now.rows[3]
    for shard in range(descriptor.shards):
        sent = {answer for at, answer in node.left if at == shard}
        if len(sent) > 1:
            raise Violation(_told("two answers for one shard have left", node))
        charged = any(kind == ledger.CHARGE and at == shard for kind, _, at in entries)
        if sent and not charged and "database" not in node.restored:
            raise Violation(_told("an answer has left that is not charged", node))
    if node.left and any(kind == ledger.FREE for kind, _, _ in entries):
        raise Violation(_told("a round that was answered is refunded", node))
    settled = node.now.running and node.path[-1] in ("start", "sweep")
    ended = node.now.time >= EXPIRED or any(state != State.LIVE for _, state in signings)
    if settled and ended and node.now.roots:
        raise Violation(_told("a root outlives its round", node))


def _told(what: str, node: Node) -> str:
    return f"{what}: {' > '.join(node.path)}"
