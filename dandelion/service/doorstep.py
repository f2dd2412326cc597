"""A connection that has not brought the head of its first request: a socket, a few bytes, and a
moment at which it is cut.

aiohttp makes a parser, a task and some fifty objects for a connection before its first byte. Those
who open thousands of them and say nothing, or a byte now and then, get none of that here.

Leaves out: whether a head is good. Anything that cannot become a plain one goes to aiohttp's parser
at once, so that it is refused as early and in the same words as ever.
"""

import asyncio
import re
from typing import Final, Protocol, cast

# A request line as every client of ours writes it.
_LINE: Final = re.compile(rb"[A-Z]{1,16} /[!-~]{0,1024} HTTP/1\.1\r\n")
_BEGINS: Final = re.compile(rb"[A-Z]{1,16}(?: [!-~ ]*\r?)?\Z")
_HEAD_MAX: Final = 2_048


class House(Protocol):
    """What a doorstep belongs to: a listener."""

    @property
    def doorsteps(self) -> "dict[Doorstep, float]":
        """All of them, with the moment (loop time) at which each is cut."""

    def arrive(self, doorstep: "Doorstep") -> bool:
        """Whether one more connection may come; if so it is entered in `doorsteps`."""

    def enter(self, doorstep: "Doorstep", came: bytes) -> None:
        """Takes it out of `doorsteps`; a connection goes on in its place, with what came so far."""


class Doorstep(asyncio.Protocol):
    """The first protocol of every connection."""

    __slots__ = ("_came", "_house", "transport")

    transport: asyncio.Transport

    def __init__(self, house: House) -> None:
        self._house = house
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._house.arrive(self):
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._house.doorsteps.pop(self, None)

    def data_received(self, data: bytes) -> None:
        came = self._came + data if self._came else data
        if _may_wait(came):
            self._came = came
            return
        if self not in self._house.doorsteps:
            # Cut or refused, with bytes still on their way to here.
            return
        self._came = b""
        self._house.enter(self, came)


def _may_wait(came: bytes) -> bool:
    """Whether these are the first bytes of a head, not all of them, and nothing is wrong so far."""
    if len(came) > _HEAD_MAX or b"\r\n\r\n" in came:
        return False
    if b"\n" in came:
        return _LINE.match(came) is not None
    return _BEGINS.match(came) is not None
