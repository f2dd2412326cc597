"""What the operators of the scripts' Lua mean: closures over an environment of variables."""

import operator
from collections.abc import Callable
from typing import Any, Final

Env = dict[str, Any]
Expression = Callable[[Env], Any]

_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


class LuaError(Exception):
    """A script outside the subset, or one that does what Lua forbids."""


def several_of(values: list[Expression], count: int) -> Expression:
    """So many values; a single call may give them all."""
    if len(values) == count == 1:
        [only] = values
        return lambda env: (_one(only(env)),)
    if len(values) == 1:
        [call] = values
        return lambda env: _padded(call(env), count)
    if len(values) not in (0, count):
        raise LuaError("names and values differ in number")
    if not values:
        return lambda _: (None,) * count
    return lambda env: tuple(_one(value(env)) for value in values)


def _padded(value: Any, count: int) -> tuple[Any, ...]:
    found = value if isinstance(value, tuple) else (value,)
    return (*found, *(None,) * count)[:count]


def _one(value: Any) -> Any:
    return _padded(value, 1)[0] if isinstance(value, tuple) else value


def binary(sign: str, left: Expression, right: Expression) -> Expression:
    """Two operands and the sign between them."""
    if sign == "and":
        return lambda env: right(env) if is_true(value := left(env)) else value
    if sign == "or":
        return lambda env: value if is_true(value := left(env)) else right(env)
    if sign == "==":
        return lambda env: _equal(left(env), right(env))
    if sign == "~=":
        return lambda env: not _equal(left(env), right(env))
    if sign == "..":
        return lambda env: word_of(left(env)) + word_of(right(env))
    if sign == "/":
        return lambda env: _whole(left(env) / right(env))
    order = _ORDERS[sign]

    def run(env: Env) -> Any:
        one, other = left(env), right(env)
        if type(one) is not int or type(other) is not int:
            raise LuaError(f"{sign} of {type(one).__name__} and {type(other).__name__}")
        return order(one, other)

    return run


def field_of(holder: Expression, key: Expression) -> Expression:
    """What a table holds under a key."""

    def read(env: Env) -> Any:
        table = holder(env)
        if not isinstance(table, dict):
            raise LuaError("not a table")
        return table.get(key(env))

    return read


def call_of(function: Expression, arguments: list[Expression]) -> Expression:
    """What a function gives; several values come as a tuple."""
    return lambda env: function(env)(*(_one(argument(env)) for argument in arguments))


def is_true(value: Any) -> bool:
    """Whether a condition holds: zero and the empty string are true in Lua."""
    return value is not None and value is not False


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _whole(number: float) -> int:
    if number != int(number):
        raise LuaError("only whole numbers")
    return int(number)


def length_of(value: Any) -> int:
    """Bytes of a string, or entries of a list, of which only the last may be nil."""
    if isinstance(value, bytes):
        return len(value)
    count = len(value)
    while count not in value and count:
        count -= 1
    return count


def word_of(value: Any) -> bytes:
    """An argument of a command."""
    if isinstance(value, bytes):
        return value
    if type(value) is int:
        return b"%d" % value
    raise LuaError(f"{type(value).__name__} as an argument of a command")
