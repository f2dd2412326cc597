"""Every story of faults, some at the same time: real processes, seeded drivers, one oracle.

A story that fails prints its seed, its verdicts and where its logs are.
"""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from tests.faults import restores
from tests.faults.stories import STORIES

# They wait for each other in the set-up of the first one.
pytestmark = pytest.mark.timeout(400)
AT_ONCE = 4

assert restores.__name__  # importing it has put its stories on the list


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> Mapping[str, BaseException | None]:
    """How the chosen stories ended."""
    items = cast("list[pytest.Function]", request.session.items)
    here = (it for it in items if it.module is request.module)
    wanted = [str(it.callspec.params["name"]) for it in here]
    return asyncio.run(_run(wanted))


async def _run(names: list[str]) -> dict[str, BaseException | None]:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with turns:
            await STORIES[name]()

    found = await asyncio.gather(*map(one, names), return_exceptions=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, ended: Mapping[str, BaseException | None]) -> None:
    """Nothing acknowledged is lost, nothing counts twice, and loss that stays is found out."""
    error = ended[name]
    if error is not None:
        raise error
