"""Anchors: what was acknowledged is remembered beside the store."""

import asyncio
from pathlib import Path

import pytest

from collector import anchors as anchors_module
from collector.anchors import AnchorFile, losses, read, sweep
from collector.store import Epoch, EpochMeta, Lane

ROUND = b"r" * 16
LANE = Lane(ROUND, 0, 0)
EPOCH = Epoch(1, b"w" * 16)


def meta(seq: int, n: int) -> EpochMeta:
    """What an epoch has committed."""
    return EpochMeta(EPOCH, seq, n)


def names(folder: Path) -> list[str]:
    """The files in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def test_an_anchor_is_written_and_read(tmp_path: Path) -> None:
    """The newest state of each epoch is in the file; other rounds are not mixed in."""
    with AnchorFile(tmp_path, "a") as file:
        file.note(LANE, meta(1, 10))
        file.note(LANE, meta(2, 25))
        file.note(Lane(b"x" * 16, 0, 0), meta(9, 9))
        await file.flush()
    [anchor] = read(tmp_path, ROUND)
    assert (anchor.lane, anchor.meta, anchor.lost) == (LANE, meta(2, 25), False)


async def test_the_file_follows_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is on disk soon after, without anybody asking for it."""
    monkeypatch.setattr(anchors_module, "INTERVAL_S", 0.01)
    with AnchorFile(tmp_path, "a") as file:
        following = asyncio.create_task(file.run())
        for seq in range(1, 4):
            file.note(LANE, meta(seq, seq))
            await asyncio.sleep(0.05)
            [anchor] = read(tmp_path, ROUND)
            assert anchor.meta.seq == seq
        following.cancel()


@pytest.mark.parametrize(
    "stored, expected",
    [
        ([meta(2, 25)], 0),
        ([meta(3, 40)], 0),
        ([meta(1, 25)], 1),
        ([meta(2, 24)], 1),
        ([EpochMeta(Epoch(1, b"x" * 16), 2, 25)], 1),
        ([], 1),
    ],
    ids=["equal", "ahead", "older step", "fewer reports", "another incarnation", "forgotten"],
)
async def test_a_store_behind_an_anchor_has_lost(
    tmp_path: Path, stored: list[EpochMeta], expected: int
) -> None:
    """Only a store that is at least as far as every anchor has lost nothing."""
    with AnchorFile(tmp_path, "a") as file:
        file.note(LANE, meta(2, 25))
        await file.flush()
    found = read(tmp_path, ROUND)
    assert losses(found, LANE, stored) == expected
    assert losses(found, Lane(ROUND, 0, 1), []) == 0


async def test_a_loss_that_was_seen_is_remembered(tmp_path: Path) -> None:
    """A process that met a gap says so, whatever the store shows later."""
    with AnchorFile(tmp_path, "a") as file:
        file.note_loss(LANE, EPOCH)
        await file.flush()
    assert losses(read(tmp_path, ROUND), LANE, [meta(100, 100)]) == 1


async def test_files_of_the_dead_are_swept_when_their_rounds_are_over(tmp_path: Path) -> None:
    """A living process keeps its file, and so does a round that is not over."""
    dead, alive = AnchorFile(tmp_path, "dead"), AnchorFile(tmp_path, "alive")
    for file in (dead, alive):
        file.note(LANE, meta(1, 1))
        await file.flush()
    dead.close()
    sweep(tmp_path, {ROUND})
    assert names(tmp_path) == ["alive.json", "alive.lock", "dead.json", "dead.lock"]
    sweep(tmp_path, set())
    assert names(tmp_path) == ["alive.json", "alive.lock"]
    alive.close()


async def test_rounds_that_are_over_leave_the_file(tmp_path: Path) -> None:
    """A process forgets rounds that take no more commits."""
    with AnchorFile(tmp_path, "a") as file:
        file.note(LANE, meta(1, 1))
        file.forget(set())
        await file.flush()
    assert read(tmp_path, ROUND) == []
