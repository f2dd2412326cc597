"""When Python looks for cycles: among what is new several times a second, among all once a minute.

Left alone it looks when enough more objects were made than died. Where thousands of connections
come and go that happens every quarter of a minute, and then all their objects are new: everybody
waits a tenth of a second, which is the hundredth slowest answer. A report itself leaves no cycles.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from collector.tasks import end

YOUNG_S: Final = 0.2
ALL_S: Final = 60.0
# Only a burst makes so many between two looks. Older generations have no other turn than ours.
_BURST: Final = 100_000
_NEVER: Final = 1_000_000


@asynccontextmanager
async def collected_on_time() -> AsyncIterator[None]:
    """For a process that serves: what it has now lives as long as it, and is not looked at."""
    gc.collect()
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(_BURST, _NEVER, _NEVER)
    task = asyncio.create_task(_collect())
    try:
        yield
    finally:
        await end(task)
        gc.set_threshold(*before)
        gc.unfreeze()


async def _collect() -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(YOUNG_S)
        if loop.time() - last < ALL_S:
            gc.collect(0)
        else:
            gc.collect()
            last = loop.time()
