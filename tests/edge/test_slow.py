"""Hundreds of slow connections beside good clients: those are all served, these are all cut."""

import asyncio
import threading

from tests.edge.corpus import Target
from tests.edge.server import SHORT
from tests.edge.slow import KINDS, Crowd
from tests.edge.wire import Listener, answers, listener, talk

SLOW, GOOD, REPORTS = 300, 50, 10


def heads_of(target: Target) -> tuple[bytes, bytes]:
    """The head of a good request, and of one that declares another length."""
    wrong = f"Content-Length: {len(target.body) + 7}"
    return target.request(target.size, body=b""), target.request(wrong, body=b"")


async def work(it: Listener) -> list[int]:
    """A good client: reports one after the other on one connection; what it heard."""
    target = it.where.target
    request = target.request(target.size)
    last = target.request(target.size, "Connection: close")
    came = await talk(it.port, request * (REPORTS - 1) + last)
    return [answer.status for answer in answers(came)]


async def test_good_clients_are_served_while_slow_ones_are_cut() -> None:
    """Every report of fifty clients is answered while three hundred connections dawdle, each of
    which has been cut or answered at least once at the end; then none of them is left."""
    limits = SHORT | {"header_s": 1.0, "body_s": 1.0, "keepalive_s": 1.0}
    async with listener("collector", **limits) as it:
        await it.good()
        stop = threading.Event()
        crowd = Crowd(it.port, SLOW, *heads_of(it.where.target))
        held = asyncio.create_task(asyncio.to_thread(crowd.run, stop))
        try:
            while not all(crowd.counts[f"{kind} cut"] >= SLOW / len(KINDS) for kind in KINDS):
                assert (
                    await asyncio.gather(*(work(it) for _ in range(GOOD)))
                    == [[200] * REPORTS] * GOOD
                )
        finally:
            stop.set()
            counts = await held
        assert counts["body heard 408"] >= SLOW / len(KINDS)
        assert counts["refused heard 400"] >= SLOW / len(KINDS)
        async with asyncio.timeout(30):
            while (await it.state())["connections"]:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.1)
