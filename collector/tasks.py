"""Ending tasks for certain.

One cancellation is not enough. `asyncio.wait_for` of Python 3.11, through which the store's client
sends its commands, returns as if nothing had happened when it is cancelled just as what it waits
for is done; the task goes on, and whoever waits for its end waits for ever.
"""

import asyncio
from typing import Any, Final

AGAIN_S: Final = 1.0


async def end(*tasks: "asyncio.Task[Any]", again_s: float = AGAIN_S) -> None:
    """Cancels the tasks until all of them have ended, and leaves their results alone."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=again_s)
