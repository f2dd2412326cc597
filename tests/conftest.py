"""What all tests have in common."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import pytest
import uvloop

# Tests of services run on the loop that services run on: its transports are not those of asyncio,
# and a guard that held on one of the two loops only has been seen.
ON_UVLOOP: Final = {"collector", "edge", "helper"}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a test, by its folder."""
    if item.path.parent.name in ON_UVLOOP:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
