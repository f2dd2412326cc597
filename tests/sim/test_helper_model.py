"""One helper and one round, explored to the end: no order of events and no moment of a crash or of
a failing disk brings out two answers for a shard, an answer that is not paid for, a refund of one
that was given, or a root that outlives its round. Each defence has its control.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dandelion.privacy import ledger
from helper.answers import Answers
from helper.keeper import Keeper
from helper.roots import Marked, Roots
from helper.store import Signing, State, Store
from tests.sim.helper_model import Explorer, Outcome, Violation

RIVALS: dict[str, Any] = {"asks": ((0, "A"), (0, "B"))}
# The second shard is never asked for: the root outlives the first answer.
HALF: dict[str, Any] = {"shards": 2, **RIVALS}
BOTH: dict[str, Any] = {"shards": 2, "asks": ((0, "A"), (1, "A"))}


@contextmanager
def explorer(folder: Path, **options: Any) -> Iterator[Explorer]:
    """An exploration in a folder."""
    found = Explorer(folder, **options)
    try:
        yield found
    finally:
        found.close()


def explore(folder: Path, **options: Any) -> Outcome:
    """Visits everything."""
    with explorer(folder, **options) as found:
        return found.run()


@pytest.mark.parametrize("copies", [("database",), ("roots",)], ids=str)
def test_one_shard_is_answered_once(tmp_path: Path, copies: tuple[str, ...]) -> None:
    """Two sets are asked for; an older database, or older root files, may be put back."""
    outcome = explore(tmp_path, **RIVALS, copies=copies)
    assert outcome.states == set(State) - {State.CLOSED}
    assert outcome.machines > 100
    # What makes it worth something: all of this was met on the way.
    met = {"answer", "ask: set_conflict", "ask: key_gone", "ask: expired", "compute: expired"}
    met |= {"sign: key_gone", "compute crash", "sweep crash", "sign crash", "fetch crash"}
    met |= {"compute: store_unavailable", "fetch: store_unavailable", "sweep failure"}
    assert met <= set(outcome.heard), met - set(outcome.heard)


@pytest.mark.parametrize("asked", [HALF, BOTH], ids=["half", "both"])
def test_a_root_that_outlives_an_answer_remembers_it(tmp_path: Path, asked: dict[str, Any]) -> None:
    """With two shards the first answer leaves the root alive; its name tells what it gave."""
    outcome = explore(tmp_path, **asked, copies=("database",))
    assert State.CLOSED in outcome.states
    assert "ask: key_gone" in outcome.heard


def no_erasing(_: Roots, __: object) -> None:
    """Leaves the root where it is."""


def unknowing(_: Marked, __: int) -> bool:
    """A name that is not looked at."""
    return False


def no_note(_: Roots, root: Marked, __: int) -> Marked:
    """Leaves the name as it is."""
    return root


def refund_without_the_root(keeper: Keeper, signing: Signing, _: object) -> None:
    """Trusts the database alone, which may be an old one."""
    answered = keeper._store.answered_shards(signing.ctx)
    with keeper._store.transaction():
        keeper._store.set_state(signing.ctx, State.CLOSED if answered else State.FREEING)


def refund_on_abandon(keeper: Keeper, signing: Signing, _: object) -> None:
    """Frees whatever was not answered in full."""
    with keeper._store.transaction():
        keeper._store.set_state(signing.ctx, State.FREEING)


def uncharged(store: Store, kind: str, signing: Signing, shard: int, now: int) -> None:
    """Forgets to charge."""
    if kind != ledger.CHARGE:
        append(store, kind, signing, shard, now)


def hasty(answers: Answers, signing: Signing, shard: int) -> Any:
    """Hands out what is stored, whatever the root knows."""
    return answers._store.answer(signing.ctx, shard)


append = Store.append


@pytest.mark.parametrize(
    "asked, owner, name, broken, told",
    [
        (RIVALS, Roots, "erase", no_erasing, "a root outlives its round"),
        (HALF, Marked, "has_answered", unknowing, "two answers for one shard"),
        (BOTH, Roots, "note_answered", no_note, "is refunded"),
        (RIVALS, Keeper, "_expire", refund_without_the_root, "is refunded"),
        (BOTH, Keeper, "_expire", refund_on_abandon, "is refunded"),
        (RIVALS, Store, "append", uncharged, "not charged"),
        (RIVALS, Answers, "_fetchable", hasty, "is refunded"),
        (HALF, Answers, "_fetchable", hasty, "is refunded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_control_without_a_defence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    owner: type,
    name: str,
    broken: Callable[..., Any],
    told: str,
) -> None:
    """The exploration finds what each defence prevents."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Violation, match=told):
        explore(tmp_path, **asked, copies=("database",))


def test_control_an_answer_before_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that answers first and writes down afterwards answers a second set."""
    commit = Answers._commit
    with explorer(tmp_path, **RIVALS, copies=()) as found:

        def answer_first(answers: Answers, signing: Signing, ask: Any, answer: bytes) -> None:
            found.helper.sent.append((ask.shard, answer))
            commit(answers, signing, ask, answer)

        monkeypatch.setattr(Answers, "_commit", answer_first)
        with pytest.raises(Violation, match="not charged"):
            found.run()


def test_control_a_whole_machine_restored(tmp_path: Path) -> None:
    """Old database and old roots together are beyond what a helper can notice: root files belong
    into no backup (docs/protocol.md section 11.3).
    """
    with pytest.raises(Violation, match=r"is refunded|two answers"):
        explore(tmp_path, **RIVALS, copies=("database", "roots"))
