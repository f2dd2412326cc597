"""The subset of Lua: what it understands means what Lua means, and the rest is refused."""

from typing import Any

import pytest

from tests.sim.lua import Script
from tests.sim.lua_values import LuaError


def run(text: str, *args: bytes) -> Any:
    """What a script replies that calls nothing."""
    return Script(text).run([], list(args), lambda *words: list(words))


@pytest.mark.parametrize(
    "expression, value",
    [
        ("0 and 'zero is true' or 'not'", b"zero is true"),
        ("'' and 1 or 2", 1),
        ("nil or false or 3", 3),
        ("not nil", 1),
        ("1 + 2 * 3 - 4 / 2", 5),
        ("2 * (3 + 1)", 8),
        ("'a' .. 1 .. 'b'", b"a1b"),
        ("'1' == 1", None),
        ("'1' ~= 1", 1),
        ("#'four'", 4),
        ("#{1, 2, 3}", 3),
        ("{1, 'two', {3}, nil, 5}", [1, b"two", [3]]),
        ("{1, false, 3}", [1, None, 3]),
        ("tonumber('12') + 1", 13),
        ("tonumber('x') == nil", 1),
        ("string.sub('abcdef', 2, 3)", b"bc"),
        ("string.format('%d', 7)", b"7"),
        ("ARGV[2]", b"y"),
        ("ARGV[3] == nil", 1),
        ("redis.call('GET', 'key', 5)", [b"GET", b"key", b"5"]),
    ],
)
def test_an_expression_means_what_lua_means(expression: str, value: object) -> None:
    """Truth, numbers, strings, tables and their conversion to replies."""
    assert run(f"return {expression}", b"x", b"y") == value


def test_statements() -> None:
    """Branches, loops, several values at once, a return out of the middle."""
    text = """
    -- A comment, and 'words' in it.
    local found = {}
    local high, low = string.byte(ARGV[1], 1, 2)
    local nothing
    for i = 1, 4 do
      if i == 2 then
        found[#found + 1] = high
      elseif i == 3 then
        found[#found + 1], found[9] = low, nil
      else
        found[#found + 1] = 0
      end
    end
    if nothing then
      return 'never'
    end
    return found
    """
    assert run(text, b"\x07\x09") == [0, 7, 9, 0]
    assert run("if true then return 1 end return 2") == 1
    assert run("local a = 1") is None


@pytest.mark.parametrize(
    "text",
    [
        "return unknown",
        "local a = 1 local a = 2",
        "local a = 1 if a then local a = 2 end",
        "while true do end",
        "local f = function() end",
        "for k, v in pairs(KEYS) do end",
        "return 'a' + 1",
        "return 1 / 2 / 3",
        "return 1 < '2'",
        "return string.sub('abc', -1, 2)",
        "return KEYS.a.b",
        "a = 1",
        "return {",
        "return 1 end",
        'return "double"',
        "local a, b = 1, 2, 3",
    ],
)
def test_what_it_does_not_know_is_refused(text: str) -> None:
    """Neither guessed at nor passed over."""
    with pytest.raises(LuaError):
        run(text)
