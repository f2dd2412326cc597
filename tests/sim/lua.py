"""The small part of Lua in which the store's scripts are written, so that simulations run the very
scripts of production.

A script becomes a tree of closures (lua_parser.py over lua_values.py): no text is executed as
Python. Strings are bytes, whole numbers are `int`, tables are dictionaries, nil is None. What the
subset leaves out (functions, `while`, patterns, globals, shadowed names) is refused when a script
is compiled, never guessed at; that the rest means what Redis means by it is what
tests/collector/test_store.py compares.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from tests.sim.lua_parser import Parser
from tests.sim.lua_values import Env, LuaError, word_of

Call = Callable[..., Any]


class Script:
    """A compiled script."""

    def __init__(self, text: str) -> None:
        self._body = Parser(text, _GLOBALS).script()

    def run(self, keys: Sequence[bytes], args: Sequence[bytes], call: Call) -> Any:
        """What Redis would reply; `call` executes one command of the script."""
        env: Env = {
            "KEYS": dict(enumerate(keys, start=1)),
            "ARGV": dict(enumerate(args, start=1)),
            "redis": {b"call": lambda *words: _from_reply(call(*map(word_of, words)))},
            "string": _STRING,
            "tonumber": _tonumber,
        }
        returned = self._body(env)
        return _to_reply(returned[0]) if returned else None


@lru_cache(maxsize=64)
def compiled(text: str) -> Script:
    """The script of a text, compiled once."""
    return Script(text)


def _tonumber(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, bytes) and re.fullmatch(rb"-?\d+", value):
        return int(value)
    return None


def _sub(text: bytes, first: int, last: int) -> bytes:
    if first < 1 or last < 0:
        raise LuaError("positions from the end")
    return text[first - 1 : last]


def _format(template: bytes, *values: Any) -> bytes:
    return template % values


_STRING: Final[dict[bytes, Call]] = {
    b"sub": _sub,
    b"byte": lambda text, first, last: tuple(_sub(text, first, last)),
    b"format": _format,
}

_GLOBALS: Final = frozenset(["KEYS", "ARGV", "redis", "string", "tonumber"])


def _from_reply(reply: Any) -> Any:
    if reply is None:
        return False
    if isinstance(reply, list):
        return {at: _from_reply(value) for at, value in enumerate(reply, start=1)}
    return reply


def _to_reply(value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, dict):
        # An array ends at its first nil; false is a null in it.
        found: list[Any] = []
        while (entry := value.get(len(found) + 1)) is not None:
            found.append(_to_reply(entry))
        return found
    return value
