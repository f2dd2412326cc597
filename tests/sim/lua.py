"""The small part of Lua in which the store's scripts are written, so that simulations run the very
scripts of production.

A script becomes a tree of closures: no text is executed as Python. Strings are bytes, whole numbers
are `int`, tables are dictionaries, nil is None. What the subset leaves out (functions, `while`,
patterns, globals, shadowed names) is refused when a script is compiled, never guessed at; that the
rest means what Redis means by it is what tests/collector/test_store.py compares.
"""

import operator
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn

Env = dict[str, Any]
Expression = Callable[[Env], Any]
# What `return` gave, in a tuple; None if the statement did not return.
Statement = Callable[[Env], tuple[Any] | None]
Call = Callable[..., Any]

_TOKEN: Final = re.compile(
    r"(?P<space>\s+|--[^\n]*)|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|'(?P<string>[^'\\\n]*)'|(?P<sign>\.\.|[=~<>]=|[-+*/#=<>(){}\[\],.])"
)
_KEYWORDS: Final = frozenset(
    [
        *("and", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local"),
        *("nil", "not", "or", "repeat", "return", "then", "true", "until", "while"),
    ]
)
_LEVELS: Final[tuple[tuple[str, ...], ...]] = (
    ("or",),
    ("and",),
    ("==", "~=", "<", "<=", ">", ">="),
    ("..",),
    ("+", "-"),
    ("*", "/"),
)
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


class Script:
    """A compiled script."""

    def __init__(self, text: str) -> None:
        self._body = _Parser(text).script()

    def run(self, keys: Sequence[bytes], args: Sequence[bytes], call: Call) -> Any:
        """What Redis would reply; `call` executes one command of the script."""
        env: Env = {
            "KEYS": dict(enumerate(keys, start=1)),
            "ARGV": dict(enumerate(args, start=1)),
            "redis": {b"call": lambda *words: _from_reply(call(*map(_word, words)))},
            "string": _STRING,
            "tonumber": _tonumber,
        }
        returned = self._body(env)
        return _to_reply(returned[0]) if returned else None


@lru_cache(maxsize=64)
def compiled(text: str) -> Script:
    """The script of a text, compiled once."""
    return Script(text)


class _Parser:
    """Recursive descent over the tokens; each rule returns the closure of what it has read."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._scopes = [{"KEYS", "ARGV", "redis", "string", "tonumber"}]

    def script(self) -> Statement:
        body = self._block(None)
        if self._kind:
            self._fail("end of script")
        return body

    # Statements

    def _block(self, *ends: str | None) -> Statement:
        self._scopes.append(set())
        statements: list[Statement] = []
        while self._word not in ends:
            statements.append(self._statement())
        self._scopes.pop()

        def run(env: Env) -> tuple[Any] | None:
            for statement in statements:
                if (returned := statement(env)) is not None:
                    return returned
            return None

        return run

    def _statement(self) -> Statement:
        if self._take("local"):
            return self._local()
        if self._take("if"):
            return self._if()
        if self._take("for"):
            return self._for()
        if self._take("return"):
            value = self._expression()
            return lambda env: (value(env),)
        return self._assignment_or_call()

    def _local(self) -> Statement:
        names = [self._name()]
        while self._take(","):
            names.append(self._name())
        values = self._list() if self._take("=") else []
        for name in names:
            if any(name in scope for scope in self._scopes):
                raise LuaError(f"{name} is declared twice")
            self._scopes[-1].add(name)
        several = _several(values, len(names))

        def run(env: Env) -> None:
            env.update(zip(names, several(env), strict=True))

        return run

    def _if(self) -> Statement:
        branches = []
        otherwise: Statement | None = None
        while True:
            condition = self._expression()
            self._expect("then")
            branches.append((condition, self._block("elseif", "else", "end")))
            if not self._take("elseif"):
                break
        if self._take("else"):
            otherwise = self._block("end")
        self._expect("end")

        def run(env: Env) -> tuple[Any] | None:
            for condition, body in branches:
                if _true(condition(env)):
                    return body(env)
            return otherwise(env) if otherwise else None

        return run

    def _for(self) -> Statement:
        name = self._name()
        self._expect("=")
        first = self._expression()
        self._expect(",")
        last = self._expression()
        self._expect("do")
        self._scopes.append({name})
        body = self._block("end")
        self._scopes.pop()
        self._expect("end")

        def run(env: Env) -> tuple[Any] | None:
            for number in range(first(env), last(env) + 1):
                env[name] = number
                if (returned := body(env)) is not None:
                    return returned
            return None

        return run

    def _assignment_or_call(self) -> Statement:
        targets = [self._suffixed()]
        while self._take(","):
            targets.append(self._suffixed())
        if not self._take("="):
            [(call, holder, _)] = targets
            if holder is not None:
                self._fail("an assignment")

            def ignore(env: Env) -> None:
                call(env)

            return ignore
        several = _several(self._list(), len(targets))

        def run(env: Env) -> None:
            for (_, holder, key), value in zip(targets, several(env), strict=True):
                if holder is None or key is None:
                    raise LuaError("only fields of tables are assigned to")
                if value is None:
                    holder(env).pop(key(env), None)
                else:
                    holder(env)[key(env)] = value

        return run

    # Expressions

    def _list(self) -> list[Expression]:
        values = [self._expression()]
        while self._take(","):
            values.append(self._expression())
        return values

    def _expression(self, level: int = 0) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        left = self._expression(level + 1)
        while self._word in _LEVELS[level]:
            sign = self._next()
            left = _binary(sign, left, self._expression(level + 1))
        return left

    def _unary(self) -> Expression:
        if self._take("not"):
            operand = self._unary()
            return lambda env: not _true(operand(env))
        if self._take("#"):
            operand = self._unary()
            return lambda env: _length(operand(env))
        return self._suffixed()[0]

    def _suffixed(self) -> tuple[Expression, Expression | None, Expression | None]:
        """An expression, and the table and key it reads if it ends in a field."""
        value = self._primary()
        holder: Expression | None = None
        key: Expression | None = None
        while True:
            if self._take("["):
                holder, key = value, self._expression()
                self._expect("]")
                value = _field(holder, key)
            elif self._take("."):
                name = self._name().encode()
                holder, key = value, lambda _, name=name: name
                value = _field(holder, key)
            elif self._take("("):
                arguments = [] if self._word == ")" else self._list()
                self._expect(")")
                value, holder, key = _called(value, arguments), None, None
            else:
                return value, holder, key

    def _primary(self) -> Expression:
        kind, word = self._kind, self._next()
        if kind == "number":
            number = int(word)
            return lambda _: number
        if kind == "string":
            text = word.encode()
            return lambda _: text
        if word in _CONSTANTS:
            constant = _CONSTANTS[word]
            return lambda _: constant
        if word == "{":
            values = [] if self._word == "}" else self._list()
            self._expect("}")
            return lambda env: dict(enumerate((value(env) for value in values), start=1))
        if word == "(":
            value = self._expression()
            self._expect(")")
            return value
        if kind != "name" or not any(word in scope for scope in self._scopes):
            self._at -= 1
            self._fail("a value")
        return lambda env: env[word]

    # Tokens

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _word(self) -> str | None:
        kind, word = self._tokens[self._at]
        return None if kind in ("", "string") else word

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _take(self, word: str) -> bool:
        if self._word != word:
            return False
        self._at += 1
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            self._fail(word)

    def _name(self) -> str:
        if self._kind != "name":
            self._fail("a name")
        return self._next()

    def _fail(self, wanted: str) -> NoReturn:
        raise LuaError(f"token {self._at}: {self._tokens[self._at][1]!r} where {wanted} should be")


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise LuaError(f"no token at {text[at : at + 20]!r}")
        at = match.end()
        kind, word = match.lastgroup, match[match.lastgroup]
        if kind == "name" and word in _KEYWORDS:
            kind = "keyword"
        if kind != "space":
            found.append((kind, word))
    return [*found, ("", "the end")]


def _several(values: list[Expression], count: int) -> Expression:
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


def _binary(sign: str, left: Expression, right: Expression) -> Expression:
    if sign == "and":
        return lambda env: right(env) if _true(value := left(env)) else value
    if sign == "or":
        return lambda env: value if _true(value := left(env)) else right(env)
    if sign == "==":
        return lambda env: _equal(left(env), right(env))
    if sign == "~=":
        return lambda env: not _equal(left(env), right(env))
    if sign == "..":
        return lambda env: _word(left(env)) + _word(right(env))
    if sign == "/":
        return lambda env: _whole(left(env) / right(env))
    order = _ORDERS[sign]

    def run(env: Env) -> Any:
        one, other = left(env), right(env)
        if type(one) is not int or type(other) is not int:
            raise LuaError(f"{sign} of {type(one).__name__} and {type(other).__name__}")
        return order(one, other)

    return run


def _field(holder: Expression, key: Expression) -> Expression:
    def read(env: Env) -> Any:
        table = holder(env)
        if not isinstance(table, dict):
            raise LuaError("not a table")
        return table.get(key(env))

    return read


def _called(function: Expression, arguments: list[Expression]) -> Expression:
    return lambda env: function(env)(*(_one(argument(env)) for argument in arguments))


def _true(value: Any) -> bool:
    # Zero and the empty string are true in Lua.
    return value is not None and value is not False


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _whole(number: float) -> int:
    if number != int(number):
        raise LuaError("only whole numbers")
    return int(number)


def _length(value: Any) -> int:
    if isinstance(value, bytes):
        return len(value)
    count = len(value)
    while count not in value and count:
        count -= 1
    return count


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


_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "nil": None}
_STRING: Final[dict[bytes, Call]] = {
    b"sub": _sub,
    b"byte": lambda text, first, last: tuple(_sub(text, first, last)),
    b"format": _format,
}


def _word(value: Any) -> bytes:
    """An argument of a command."""
    if isinstance(value, bytes):
        return value
    if type(value) is int:
        return b"%d" % value
    raise LuaError(f"{type(value).__name__} as an argument of a command")


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
