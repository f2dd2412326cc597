"""`make leave` in small: what it counts is what arrives, and nothing else."""

import pytest

from tests.browser.leave import WAYS, delivered, in_chromium, measure

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_most_reports_of_pages_that_are_left_arrive() -> None:
    """A few pages, each way to leave; in the long run it is nearly all."""
    name, found = await measure(in_chromium, 4)
    assert name.startswith("Chromium ")
    assert found.keys() == set(WAYS)
    assert min(found.values()) >= 50


@pytest.mark.parametrize("way", WAYS)
async def test_pages_that_send_nothing_are_counted_as_lost(way: str) -> None:
    """The control: the same visits without consent."""
    async with in_chromium() as (_, new_tab):
        assert await delivered(new_tab, way, 2, consent="pending") == 0
