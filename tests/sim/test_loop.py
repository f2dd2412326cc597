"""The simulated machine itself: time, death, disks, network."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.sim.loop import Deadlock, Process, SimExecutor, SimLoop
from tests.sim.net import Network


def loop_of(seed: int = 1, *, shuffled: bool = True) -> SimLoop:
    """A loop with a seed."""
    return SimLoop(random.Random(seed), shuffled=shuffled)


def run(loop: SimLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end; the loop is of no use afterwards."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def test_time_jumps_to_the_next_timer() -> None:
    """A day passes as soon as everybody sleeps."""
    loop = loop_of()
    run(loop, asyncio.sleep(86_400))
    assert 86_400 <= loop.time() < 86_401
    assert loop.steps < 10


def test_waiting_for_what_never_happens_is_an_error_that_names_the_waiter() -> None:
    """A deadlock does not hang: it says who waits."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    loop = loop_of()
    task = loop.create_task(waits_for_ever())
    with pytest.raises(Deadlock, match="waits_for_ever"):
        loop.run_forever()
    task.cancel()
    loop.run_until_complete(asyncio.wait({task}))
    loop.close()


def test_the_order_of_what_is_ready_follows_from_the_seed() -> None:
    """Ten tasks that are ready at once run in an order that differs by seed and repeats by seed."""

    def order(seed: int) -> tuple[int, ...]:
        found: list[int] = []

        async def one(number: int) -> None:
            found.append(number)

        async def all_of_them() -> None:
            await asyncio.gather(*(one(number) for number in range(10)))

        run(loop_of(seed), all_of_them())
        return tuple(found)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(20)}) > 15


def test_a_killed_process_runs_nothing_any_more() -> None:
    """Neither its next step nor a `finally`; others do not notice."""
    reached: list[str] = []

    async def victim() -> None:
        try:
            reached.append("begun")
            await asyncio.sleep(5)
            reached.append("went on")
        finally:
            reached.append("cleaned up")

    async def main() -> None:
        loop, process = asyncio.get_running_loop(), Process("victim")
        assert isinstance(loop, SimLoop)
        loop.start(process, victim())
        await asyncio.sleep(1)
        loop.kill(process)
        await asyncio.sleep(10)

    loop = loop_of()
    run(loop, main())
    assert reached == ["begun"]
    for task in loop.tasks:
        # So that the collector of garbage has nothing to say about it.
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_stopped_process_goes_on_where_it_was() -> None:
    """Steps that fell due meanwhile are taken when it continues, not before."""
    at: list[float] = []

    async def main() -> None:
        loop, process = asyncio.get_running_loop(), Process("sleeper")
        assert isinstance(loop, SimLoop)

        async def sleeper() -> None:
            await asyncio.sleep(2)
            at.append(loop.time())

        loop.start(process, sleeper())
        await asyncio.sleep(1)
        loop.stop_process(process)
        await asyncio.sleep(30)
        loop.continue_process(process)
        await asyncio.sleep(1)

    run(loop_of(), main())
    assert len(at) == 1
    assert at[0] > 31


@pytest.mark.parametrize("effect", [False, True], ids=["before the effect", "before the news"])
def test_a_process_may_die_around_a_blocking_call(effect: bool) -> None:
    """Killed before its disk call nothing was written; killed after it nobody heard of it."""
    written: list[str] = []
    heard: list[str] = []

    async def main() -> None:
        loop, process = asyncio.get_running_loop(), Process("writer")
        assert isinstance(loop, SimLoop)
        loop.disk_delay = lambda: 1.0

        async def writer() -> None:
            await loop.run_in_executor(None, written.append, "it")
            heard.append("it")

        loop.start(process, writer())
        await asyncio.sleep(1.5 if effect else 0.5)
        loop.kill(process)
        await asyncio.sleep(5)

    loop = loop_of()
    run(loop, main())
    assert written == ["it"] * effect
    assert heard == []
    for task in loop.tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_calls_of_one_thread_keep_their_order() -> None:
    """An executor of one thread runs its calls as they were given to it."""
    order: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.disk_delay = loop.rng.random
        one: Any = SimExecutor()
        await asyncio.gather(*(loop.run_in_executor(one, order.append, it) for it in range(20)))

    run(loop_of(), main())
    assert order == list(range(20))


class _Echo(asyncio.Protocol):
    """Answers what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Listener(asyncio.Protocol):
    """Remembers what it hears, and how the connection ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.append(exc)


async def _connected(server: Process) -> tuple[SimLoop, Network, Any, _Listener]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    network = Network(loop, loop.rng)

    async def serve() -> None:
        await loop.create_server(_Echo, "there", 80)

    await loop.start(server, serve())
    transport, protocol = await loop.create_connection(_Listener, "there", 80)
    return loop, network, transport, protocol


def test_bytes_arrive_in_order_and_only_while_the_link_is_whole() -> None:
    """What is written during a partition arrives after it."""

    async def main() -> None:
        loop, network, transport, listener = await _connected(Process("there"))
        network.link("world", "there").cut_until = loop.time() + 10
        for part in (b"one ", b"two ", b"three"):
            transport.write(part)
        await asyncio.sleep(9)
        assert listener.heard == b""
        await asyncio.sleep(2)
        assert listener.heard == b"one two three"

    run(loop_of(), main())


@pytest.mark.parametrize("which", ["drop_request", "drop_reply"])
def test_a_lost_message_ends_the_connection(which: str) -> None:
    """Whether request or reply is lost, the client hears of a reset, once, and of nothing else."""

    async def main() -> None:
        _, network, transport, listener = await _connected(Process("there"))
        setattr(network.link("world", "there").quality, which, 1.0)
        transport.write(b"hello")
        await asyncio.sleep(5)
        assert listener.heard == b""
        [error] = listener.ended
        assert isinstance(error, ConnectionResetError)

    run(loop_of(), main())


def test_the_death_of_a_server_resets_its_connections() -> None:
    """The kernel tells the peers of a dead process, and refuses new ones."""

    async def main() -> None:
        server = Process("there")
        loop, _, _, listener = await _connected(server)
        loop.kill(server)
        await asyncio.sleep(1)
        [error] = listener.ended
        assert isinstance(error, ConnectionResetError)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(_Listener, "there", 80)

    run(loop_of(), main())
