"""A serving process looks for cycles by the clock, not by the count."""

import asyncio
import gc
import weakref

import pytest

from collector import garbage
from collector.garbage import collected_on_time


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.me: Knot | None = self


async def gone(knot: "weakref.ref[Knot]") -> bool:
    """Whether it goes in time to come."""
    try:
        async with asyncio.timeout(2):
            while knot() is not None:  # noqa: ASYNC110 - a collection is no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True


def old_knot() -> Knot:
    """One that has outlived a look at what is new."""
    knot = Knot()
    gc.collect(0)
    return knot


async def test_what_dies_young_goes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle that nobody holds any more is found at the next look."""
    monkeypatch.setattr(garbage, "YOUNG_S", 0.01)
    async with collected_on_time():
        assert await gone(weakref.ref(Knot()))


async def test_what_dies_old_goes_with_the_look_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle that was in use at a look at what is new is found by a look at all."""
    monkeypatch.setattr(garbage, "YOUNG_S", 0.01)
    monkeypatch.setattr(garbage, "ALL_S", 0.05)
    async with collected_on_time():
        assert await gone(weakref.ref(old_knot()))


async def test_control_looks_at_what_is_new_alone_miss_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a look at all it would stay."""
    monkeypatch.setattr(garbage, "YOUNG_S", 0.01)
    async with collected_on_time():
        assert not await gone(weakref.ref(old_knot()))


async def test_afterwards_all_is_as_before() -> None:
    """Who embeds a collector gets Python's own way back."""
    before = gc.get_threshold()
    async with collected_on_time():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
