"""From the text of a script to a tree of closures: tokens, and recursive descent over them."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

from tests.sim.lua_values import (
    Env,
    Expression,
    LuaError,
    binary,
    call_of,
    field_of,
    is_true,
    length_of,
    several_of,
)

# What `return` gave, in a tuple; None if the statement did not return.
Statement = Callable[[Env], tuple[Any] | None]

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
_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "nil": None}


class Parser:
    """Recursive descent over the tokens; each rule returns the closure of what it has read.

    Args:
        text: the script.
        predeclared: names of variables that its environment holds from the start.
    """

    def __init__(self, text: str, predeclared: Iterable[str]) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._scopes = [set(predeclared)]

    def script(self) -> Statement:
        """The whole script.

        Raises:
            LuaError: it is outside the subset.
        """
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
        several = several_of(values, len(names))

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
                if is_true(condition(env)):
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
        several = several_of(self._list(), len(targets))

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
            left = binary(sign, left, self._expression(level + 1))
        return left

    def _unary(self) -> Expression:
        if self._take("not"):
            operand = self._unary()
            return lambda env: not is_true(operand(env))
        if self._take("#"):
            operand = self._unary()
            return lambda env: length_of(operand(env))
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
                value = field_of(holder, key)
            elif self._take("."):
                name = self._name().encode()
                holder, key = value, lambda _, name=name: name
                value = field_of(holder, key)
            elif self._take("("):
                arguments = [] if self._word == ")" else self._list()
                self._expect(")")
                value, holder, key = call_of(value, arguments), None, None
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
