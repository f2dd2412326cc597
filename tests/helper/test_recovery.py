"""Crashes: what every possible kill leaves, and what a new process makes of it.

The orders that are tested here are argued in `helper.signing`, `helper.answers` and
`helper.keeper`.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dandelion.descriptor import Descriptor
from dandelion.schemes import oneshot
from helper.roots import Roots
from helper.store import Store
from helper.workers import in_thread
from tests.helper.builders import (
    T0,
    Bench,
    Running,
    ask_of,
    closed,
    copy_state,
    envelope_of,
    make_descriptor,
    reports_of,
    secret,
)


@dataclass
class Kills:
    """Copies the state directory before and after every durable step: what a kill would leave.

    `stage` is what the collector has been told by then.
    """

    bench: Bench
    stage: str = "nothing"
    taken: list[tuple[str, str, Path]] = field(default_factory=list)

    def snap(self, step: str) -> None:
        """Takes one copy."""
        name = f"kill-{len(self.taken):03}"
        target = copy_state(self.bench.state_dir, self.bench.directory / name)
        self.taken.append((self.stage, step, target))

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with a copy before it and after it."""

        def wrapped(*args: Any, **options: Any) -> Any:
            self.snap(f"before {name}")
            result = call(*args, **options)
            self.snap(f"after {name}")
            return result

        return wrapped

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Copies around every system call that changes names, and around every commit."""
        for name in ("rename", "unlink", "fsync", "write"):
            patch.setattr(os, name, self.around(name, getattr(os, name)))
        original = Store.transaction

        @contextmanager
        def transaction(store: Store) -> Iterator[None]:
            self.snap("before begin")
            with original(store):
                yield
                self.snap("before commit")
            self.snap("after commit")

        patch.setattr(Store, "transaction", transaction)


async def test_kill_at_every_durable_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step a kill hits: what the collector was told still holds, and a round has one
    answer.

    One run of key, signature and answer is photographed around every durable step; a helper is
    started over each picture, and the collector goes on from what it had been told by then.
    """
    kills = Kills(bench)
    async with bench.helper() as helper:
        with monkeypatch.context() as patch:
            kills.watch(patch)
            mask_key = await helper.make_key()
            kills.stage = "key"
            d = make_descriptor(helper.identity, mask_key)
            signature = (await helper.sign(envelope_of(d))).body
            kills.stage = "signature"
            closed(bench, d)
            ask = ask_of(d, reports_of(d, range(5)))
            body = await bench.answered(helper, ask)
            kills.stage = "answer"
            kills.snap("end")
    assert len(kills.taken) > 20
    rival = ask_of(d, reports_of(d, range(6)))
    outcomes: dict[str, set[str]] = {}
    for stage, _step, state_dir in kills.taken:
        bench.time.now = T0
        async with bench.helper(state_dir) as helper:
            outcomes.setdefault(stage, set()).add(
                await go_on(bench, helper, stage, d, signature, body)
            )
            if stage in ("signature", "answer"):
                assert (await helper.ask(rival)).token == "set_conflict"
                assert list((state_dir / "roots").iterdir()) == []
    assert outcomes == {
        # Before the collector is told of a key there may or may not be one: it asks for another.
        "nothing": {"new key"},
        # A kill between mark and commit costs the key; one after the commit costs nothing.
        "key": {"signed", "key_gone"},
        "signature": {"same answer"},
        "answer": {"same answer"},
    }


async def go_on(
    bench: Bench, helper: Running, stage: str, d: Descriptor, signature: bytes, body: bytes
) -> str:
    """What a collector that knows `stage` does next, checked against what it was told."""
    if stage == "nothing":
        await helper.make_key()
        return "new key"
    reply = await helper.sign(envelope_of(d))
    if stage == "key":
        if reply.token == "key_gone":
            # Gone for every descriptor, not only for this one.
            rival = replace(d, noise_var=d.noise_var + 1)
            assert (await helper.sign(envelope_of(rival))).token == "key_gone"
            return reply.token
        assert reply.body == signature
        return "signed"
    assert reply.body == signature
    closed(bench, d)
    assert await bench.answered(helper, ask_of(d, reports_of(d, range(5)))) == body
    return "same answer"


async def test_kill_at_every_durable_step_of_expiry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while an unanswered round expires: its root dies, and only then its reservation is
    freed, once.
    """
    async with bench.helper() as helper:
        d = await helper.signed_round()
    bench.time.now = d.expires
    kills = Kills(bench)
    with monkeypatch.context() as patch:
        kills.watch(patch)
        async with bench.helper():
            pass
    assert len(kills.taken) > 8
    for _stage, _step, state_dir in kills.taken:
        copy_state(state_dir, bench.state_dir)
        freed = ("free", 0) in bench.entries()
        assert not (freed and list(bench.roots.iterdir()))
        async with bench.helper() as helper:
            assert (await helper.ask(ask_of(d, reports_of(d, range(5))))).token == "expired"
        assert list(bench.roots.iterdir()) == []
        assert bench.entries() == [("reserve", 0), ("free", 0)]


async def test_kill_between_answer_and_erasure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shards answered, the root still there: the next start erases it."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        with monkeypatch.context() as patch:
            patch.setattr(Roots, "erase", lambda *_: None)
            await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
    assert len(list(bench.roots.iterdir())) == 1
    async with bench.helper():
        assert list(bench.roots.iterdir()) == []


async def test_kill_between_answer_and_its_mark(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard answered, its bit not yet in the root's name: the next start adds it."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        with monkeypatch.context() as patch:
            patch.setattr(Roots, "note_answered", lambda *_: None)
            await bench.answered(helper, ask_of(d, reports_of(d, range(40), 1), 1))
    assert [path.name.rpartition(".")[2] for path in bench.roots.iterdir()] == ["0"]
    async with bench.helper():
        assert [path.name.rpartition(".")[2] for path in bench.roots.iterdir()] == ["2"]


async def test_kill_between_answer_and_its_mark_before_expiry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database alone knows of the answer when the round expires: nothing is freed."""
    async with bench.helper() as helper:
        d = await helper.signed_round(shard_bits=1)
        closed(bench, d)
        with monkeypatch.context() as patch:
            patch.setattr(Roots, "note_answered", lambda *_: None)
            await bench.answered(helper, ask_of(d, reports_of(d, range(40), 1), 1))
    bench.time.now = d.expires
    async with bench.helper():
        assert list(bench.roots.iterdir()) == []
    assert bench.entries() == [("reserve", 0), ("charge", 1)]


async def test_root_without_record_dies_at_expires(bench: Bench) -> None:
    """A lost database does not keep a root alive: its own name says when it ends."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
    bench.database.unlink()
    async with bench.helper():
        assert len(list(bench.roots.iterdir())) == 1
    bench.time.now = d.expires
    async with bench.helper():
        assert list(bench.roots.iterdir()) == []


async def test_running_helper_sweeps_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that is never restarted erases what has expired, though a sweep failed before."""
    bench.configure(sweep_s=0.01)
    failed = asyncio.Event()
    async with bench.helper() as helper:
        d = await helper.signed_round()
        loop = asyncio.get_running_loop()

        def broken(*_args: object) -> None:
            loop.call_soon_threadsafe(failed.set)
            raise LookupError

        with monkeypatch.context() as patch:
            patch.setattr(Store, "unsettled", broken)
            await failed.wait()
        bench.time.now = d.expires
        while list(bench.roots.iterdir()) or ("free", 0) not in bench.entries():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_root_half_written_is_no_root(bench: Bench) -> None:
    """A kill while a root is written leaves a short file: it serves nothing and dies of age."""
    async with bench.helper():
        pass
    (bench.roots / f"{secret('pk').hex()}.made.{T0}").write_bytes(b"short")
    (bench.roots / "notes.txt").write_text("not a root")
    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, oneshot.round_keys(secret("pk"))[1])
        assert (await helper.sign(envelope_of(d))).token == "unknown_key"
    bench.time.now = T0 + 600
    async with bench.helper():
        assert [path.name for path in bench.roots.iterdir()] == ["notes.txt"]


async def test_root_half_erased_answers_nothing(bench: Bench) -> None:
    """A kill between overwriting and unlinking leaves zeros under a good name: `key_gone`."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        (path,) = bench.roots.iterdir()
        path.write_bytes(bytes(32))
        before = bench.record()
        assert (await helper.ask(ask_of(d, reports_of(d, range(5))))).token == "key_gone"
        assert bench.record() == before


async def test_old_answers_lose_their_bytes_not_their_record(bench: Bench) -> None:
    """Long after expiry the bytes go; what was answered, and its charge, stay known."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        body = await bench.answered(helper, ask_of(d, reports_of(d, range(5))))
    bench.time.now = d.expires + bench.config.answers_kept_s
    async with bench.helper() as helper:
        assert (await helper.fetch(d.ctx)).body == body
    bench.time.now += 1
    async with bench.helper() as helper:
        assert (await helper.fetch(d.ctx)).token == "expired"
    assert body not in bench.database.read_bytes()
    assert bench.entries() == [("reserve", 0), ("charge", 0)]


async def test_failing_disk_is_said_and_survived(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the root cannot be marked, the record is rolled back and nothing is signed."""

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    async with bench.helper() as helper:
        d = make_descriptor(helper.identity, await helper.make_key())
        before = bench.record()
        with monkeypatch.context() as patch:
            patch.setattr(Roots, "mark", full)
            reply = await helper.sign(envelope_of(d))
        assert reply.token == "store_unavailable"
        assert int(reply.headers["Retry-After"]) >= 1
        assert bench.record() == before
        assert (await helper.sign(envelope_of(d))).status == 200


async def test_drain_gives_up_long_sums_and_consumes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop during a long sum leaves the state as it was; the next process answers."""
    async with bench.helper() as helper:
        d = await helper.signed_round()
        closed(bench, d)
        ask = ask_of(d, reports_of(d, range(5)))
        before = bench.record()
        monkeypatch.setattr("helper.answers.in_thread", sums_hang())
        assert (await helper.ask(ask)).status == 202
    monkeypatch.undo()
    assert bench.record() == before
    async with bench.helper() as helper:
        await bench.answered(helper, ask)


def sums_hang() -> Callable[[Callable[[], Any]], Any]:
    """`in_thread`, but sums never end: they are the third computation of an ask."""
    calls = itertools.count(1)

    async def chosen(call: Callable[[], Any]) -> Any:
        return await (asyncio.Future() if next(calls) == 3 else in_thread(call))

    return chosen
