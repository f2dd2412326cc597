"""Long computations off the event loop.

A daemon thread per computation rather than a pool: a pool is joined when the process ends, and a
mask sum over millions of keys would hold up a stop that is safe at any moment.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Runs `call` in a thread of its own and returns, or raises, what it does."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        # The loop is gone if the process is stopping; nobody waits for the result then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            failure = error
            deliver(lambda: future.set_exception(failure))
        else:
            deliver(lambda: future.set_result(result))

    threading.Thread(target=work, daemon=True, name="compute").start()
    return await future
