"""Reads the closed part of SQL that can be asked (docs/protocol.md section 15).

    query     = SELECT item {, item} FROM event
                [WHERE condition {AND condition}] [GROUP BY column] [;]
    item      = column | COUNT(*) | COUNT(column) | SUM(column) | AVG(column)
              | HISTOGRAM(column, bins)
    condition = column (= | <> | < | <= | > | >=) literal
    literal   = string | integer

sqlglot cuts the text into tokens; the grammar above is read here, token by token. So the language
is closed by construction: what is not written in this file cannot be asked, whatever a later
sqlglot learns to parse. Every refusal names the construct, its line and column (from 1) and what
to write instead.

Leaves out: whether names are declared and fit their use (`sql`).
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType
from sqlglot.tokens import Tokenizer

from dandelion.errors import RuleError
from dandelion.params import INTEGER_END
from dandelion.queries.measures import Test
from dandelion.queries.refusals import INSTEAD

SQL_CHARS_MAX: Final = 8_192

Function = Literal["COUNT", "SUM", "AVG", "HISTOGRAM"]

_FUNCTIONS: Final[dict[str, Function]] = {
    "COUNT": "COUNT",
    "SUM": "SUM",
    "AVG": "AVG",
    "HISTOGRAM": "HISTOGRAM",
}
_TESTS: Final[dict[TokenType, Test]] = {
    TokenType.EQ: "eq",
    TokenType.NEQ: "ne",
    TokenType.LT: "lt",
    TokenType.LTE: "le",
    TokenType.GT: "gt",
    TokenType.GTE: "ge",
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CLAUSES: Final = frozenset(("SELECT", "FROM", "WHERE", "AND", "GROUP BY"))


class SqlRefused(RuleError):
    """`sql_refused` with the place in the text: `line` and `column`, both from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__("sql_refused", f"line {line}, column {column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


@dataclass(frozen=True)
class Word:
    """A word of the text and its place."""

    text: str
    line: int
    column: int

    def refuse(self, reason: str) -> NoReturn:
        """Refuses the question because of this word."""
        raise SqlRefused(self.line, self.column, reason)


@dataclass(frozen=True)
class Item:
    """An item of the SELECT list: a plain column (`function` None) or an aggregate."""

    at: Word
    function: Function | None = None
    column: Word | None = None
    bins: int = 0
    bins_at: Word | None = None

    @property
    def name(self) -> str:
        """The item in its plainest spelling."""
        inside = self.column.text if self.column else "*"
        bins = f", {self.bins}" if self.function == "HISTOGRAM" else ""
        return f"{self.function}({inside}{bins})" if self.function else self.at.text


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a literal."""

    column: Word
    test: Test
    test_at: Word
    value: str | int
    value_at: Word


@dataclass
class Question:
    """A question as read, its names not yet looked up."""

    items: list[Item]
    event: Word
    conditions: list[Condition] = field(default_factory=list)
    group: Word | None = None


def read(sql: str) -> Question:
    """Reads one question.

    Raises:
        SqlRefused: for everything outside the grammar.
    """
    return _Reader(sql).question()


class _Reader:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, sql: str) -> None:
        if len(sql) > SQL_CHARS_MAX:
            raise SqlRefused(1, 1, f"longer than {SQL_CHARS_MAX} characters; ask less at once")
        self._sql = sql
        self._at = 0
        try:
            self._tokens = Tokenizer().tokenize(sql)
        except TokenError:
            line, column = self._place(len(sql))
            raise SqlRefused(line, column, "a quote or a comment is still open; close it") from None

    def question(self) -> Question:
        self._expect(TokenType.SELECT, "SELECT")
        items = [self._item()]
        while self._take(TokenType.COMMA):
            items.append(self._item())
        self._expect(TokenType.FROM, "a comma or FROM")
        question = Question(items, self._name("the name of an event"))
        end = "WHERE, GROUP BY or nothing more after the one event"
        if self._take(TokenType.WHERE):
            question.conditions.append(self._condition())
            while self._take(TokenType.AND):
                question.conditions.append(self._condition())
            end = "AND, GROUP BY or nothing more"
        if self._take(TokenType.GROUP_BY):
            question.group = self._name("the name of a column")
            end = "nothing more after the one group column"
        if self._take(TokenType.SEMICOLON):
            end = "one question at a time"
        if self._token is not None:
            self._refuse(end)
        return question

    def _item(self) -> Item:
        at = self._name("a column or COUNT, SUM, AVG or HISTOGRAM", called=True)
        if not self._take(TokenType.L_PAREN):
            return Item(at)
        function = _FUNCTIONS.get(at.text.upper())
        if function is None:
            construct, instead = INSTEAD.get(
                at.text.upper(), ("this function", "use COUNT, SUM, AVG or HISTOGRAM")
            )
            at.refuse(f"{construct} is not supported; {instead}")
        if function == "COUNT" and self._take(TokenType.STAR):
            item = Item(at, function)
        else:
            column = self._name("the name of a column")
            item = Item(at, function, column)
            if function == "HISTOGRAM":
                self._expect(TokenType.COMMA, "a comma and the number of bins")
                bins, bins_at = self._integer("the number of bins, an integer above 0")
                item = Item(at, function, column, bins, bins_at)
        self._expect(TokenType.R_PAREN, "a closing parenthesis")
        return item

    def _condition(self) -> Condition:
        if self._is(TokenType.NUMBER) or self._is(TokenType.STRING):
            self._refuse("the column first, then the literal")
        column = self._name("the name of a column")
        test_at = self._word()
        test = _TESTS.get(self._token.token_type) if self._token else None
        if test is None:
            self._refuse("one of =, <>, <, <=, > or >=")
        self._at += 1
        value_at = self._word()
        text = self._take(TokenType.STRING)
        if text is not None:
            return Condition(column, test, test_at, text.text, value_at)
        value, value_at = self._integer("a string in single quotes or an integer")
        return Condition(column, test, test_at, value, value_at)

    def _integer(self, expected: str) -> tuple[int, Word]:
        at = self._word()
        negative = self._take(TokenType.DASH)
        token = self._take(TokenType.NUMBER)
        if token is None:
            self._refuse(expected)
        if not re.fullmatch(r"[0-9]{1,16}", token.text) or int(token.text) >= INTEGER_END:
            at.refuse(
                "this number is not supported: values are rounded down before they are compared; "
                "write an integer below 2^53"
            )
        return (-int(token.text) if negative else int(token.text)), at

    def _name(self, expected: str, *, called: bool = False) -> Word:
        """A name; with `called`, keywords that look like functions pass, to be refused as such."""
        token = self._token
        word = self._word()
        if token is None:
            self._refuse(expected)
        if token.token_type is not TokenType.IDENTIFIER:  # that is a name in double quotes
            upper = word.text.upper()
            reserved = token.token_type is not TokenType.VAR and (
                upper in _CLAUSES
                or (upper in INSTEAD and not (called and self._is(TokenType.L_PAREN, 1)))
            )
            if token.token_type is TokenType.STRING or reserved or not _NAME.fullmatch(upper):
                self._refuse(expected)
            word = Word(word.text.lower(), word.line, word.column)
        self._at += 1
        return word

    def _expect(self, kind: TokenType, expected: str) -> None:
        if self._take(kind) is None:
            self._refuse(expected)

    def _take(self, kind: TokenType) -> Token | None:
        token = self._token
        if token is None or token.token_type is not kind:
            return None
        self._at += 1
        return token

    def _is(self, kind: TokenType, ahead: int = 0) -> bool:
        index = self._at + ahead
        return index < len(self._tokens) and self._tokens[index].token_type is kind

    @property
    def _token(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _word(self) -> Word:
        token = self._token
        line, column = self._place(token.start if token else len(self._sql))
        return Word(token.text if token else "", line, column)

    def _place(self, offset: int) -> tuple[int, int]:
        before = self._sql[:offset]
        return before.count("\n") + 1, offset - before.rfind("\n")

    def _refuse(self, expected: str) -> NoReturn:
        """Refuses the current token by its name if it has one, else by what belongs here."""
        word = self._word()
        if self._token is None:
            word.refuse(f"the question ends too early; write {expected}")
        named = None
        if self._token.token_type not in (TokenType.STRING, TokenType.IDENTIFIER):
            named = INSTEAD.get(" ".join(word.text.upper().split()))
        if named:
            word.refuse(f"{named[0]} is not supported; {named[1]}")
        word.refuse(f"not understood; expected {expected}")
