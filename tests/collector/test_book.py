"""What the simulation found in how a process follows the list of rounds."""

from pathlib import Path

from collector.store import MemoryStore
from dandelion.round import Phase
from tests.collector.builders import plain_report
from tests.collector.door import door


async def test_a_list_that_went_back_in_time_reopens_no_round(tmp_path: Path) -> None:
    """A store that forgot the end of a round lists it as open; the database decides.

    Seed 172 of the simulation, as it was on the day: the store lost the second in which a round was
    declared damaged. A process that started afterwards took it for open until it expired.
    """
    async with door(tmp_path, MemoryStore()) as it:
        before = it.round.encode()
        await it.move(Phase.DAMAGED)
        await it.node.store.publish(it.d.round_id, before)
        await it.node.book.refresh()
        assert await it.token_of(plain_report(it.d, 1).encode()) == "round_damaged"
