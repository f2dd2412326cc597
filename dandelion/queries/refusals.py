"""What SQL has and a question may not have, and what to write instead.

Keys are tokens in upper case. The table only makes refusals helpful: a construct that is missing
here is refused as well, because the grammar does not know it.
"""

from collections.abc import Mapping
from typing import Final

_ONE_EVENT = "ask about one event; what belongs together is recorded in one row"
_AFTERWARDS = "apply it to the released table, which anyone may read"
_ARITHMETIC = ("arithmetic", "ask for SUM, AVG and COUNT of the columns and calculate afterwards")
_HISTOGRAM = "ask for HISTOGRAM(column, bins) and read it off there"
_SPREAD = "ask for HISTOGRAM(column, bins) and calculate it from the bins"
_JOIN = ("a join", _ONE_EVENT)
_SET = ("combining queries", "ask each query by itself")
_CHANGE = ("a statement that changes data", "only SELECT can be asked")
_SETTING = ("a statement other than a question", "only SELECT can be asked")
_PATTERN = ("matching a pattern", "compare with = or <>, or record the match as a column")
_ONLY_AND = ("an alternative", "ask one question for each alternative, or use GROUP BY")
_CASE = ("a conditional expression", "use WHERE, or record the outcome as a column")
_NULL = ("a test for null", "nulls satisfy no condition; COUNT(column) counts the others")
_LITERAL = ("this literal", "compare with a string in single quotes or an integer")
_WINDOW = ("a window function", "use GROUP BY")
_FILTER = ("a condition on one aggregate", "use WHERE and ask one question for each condition")
_ALL_GROUPS = "every declared group is in the table; cut it afterwards"

INSTEAD: Final[Mapping[str, tuple[str, str]]] = {
    "*": ("a star outside COUNT(*)", "name the columns; rows never leave the client"),
    "+": _ARITHMETIC,
    "-": _ARITHMETIC,
    "/": _ARITHMETIC,
    "%": _ARITHMETIC,
    "||": ("joining strings", "record what you need as a column"),
    "(": (
        "a parenthesis, function or subquery",
        "write plain columns, and join conditions with AND",
    ),
    ".": ("a qualified name", "write the column alone: there is one event"),
    "::": ("a cast", "types are declared with the event"),
    "DISTINCT": ("DISTINCT", "use GROUP BY the column and COUNT(*)"),
    "ALL": ("ALL", "leave it out"),
    "AS": ("a name for a column", "leave it out: columns are named by their expression"),
    "JOIN": _JOIN,
    "LEFT": _JOIN,
    "RIGHT": _JOIN,
    "FULL": _JOIN,
    "INNER": _JOIN,
    "OUTER": _JOIN,
    "CROSS": _JOIN,
    "NATURAL": _JOIN,
    "LATERAL": _JOIN,
    "ON": _JOIN,
    "USING": _JOIN,
    "WITH": ("a common table expression", _ONE_EVENT),
    "UNION": _SET,
    "INTERSECT": _SET,
    "EXCEPT": _SET,
    "HAVING": ("HAVING", _AFTERWARDS),
    "QUALIFY": ("QUALIFY", _AFTERWARDS),
    "ORDER BY": ("ORDER BY", _AFTERWARDS),
    "SORT BY": ("SORT BY", _AFTERWARDS),
    "LIMIT": ("LIMIT", _ALL_GROUPS),
    "OFFSET": ("OFFSET", _ALL_GROUPS),
    "FETCH": ("FETCH", _ALL_GROUPS),
    "TOP": ("TOP", _ALL_GROUPS),
    "OVER": _WINDOW,
    "WINDOW": _WINDOW,
    "FILTER": _FILTER,
    "WITHIN": _WINDOW,
    "TABLESAMPLE": ("sampling", "the client's policy decides who takes part"),
    "OR": _ONLY_AND,
    "XOR": _ONLY_AND,
    "NOT": ("NOT", "use <> or the opposite comparison"),
    "IN": ("a list of values", "ask one question for each value, or use GROUP BY"),
    "BETWEEN": ("BETWEEN", "write column >= low AND column <= high"),
    "LIKE": _PATTERN,
    "ILIKE": _PATTERN,
    "RLIKE": _PATTERN,
    "REGEXP": _PATTERN,
    "GLOB": _PATTERN,
    "SIMILAR TO": _PATTERN,
    "IS": _NULL,
    "ISNULL": _NULL,
    "NOTNULL": _NULL,
    "NULL": _NULL,
    "TRUE": _LITERAL,
    "FALSE": _LITERAL,
    "INTERVAL": _LITERAL,
    "EXISTS": ("a subquery", _ONE_EVENT),
    "ANY": ("a subquery", _ONE_EVENT),
    "SOME": ("a subquery", _ONE_EVENT),
    "CASE": _CASE,
    "IF": _CASE,
    "COALESCE": _CASE,
    "CAST": ("a cast", "types are declared with the event"),
    "MIN": ("MIN", _HISTOGRAM),
    "MAX": ("MAX", _HISTOGRAM),
    "MEDIAN": ("MEDIAN", _HISTOGRAM),
    "QUANTILE": ("QUANTILE", _HISTOGRAM),
    "PERCENTILE_CONT": ("PERCENTILE_CONT", _HISTOGRAM),
    "APPROX_QUANTILE": ("APPROX_QUANTILE", _HISTOGRAM),
    "VARIANCE": ("VARIANCE", _SPREAD),
    "STDDEV": ("STDDEV", _SPREAD),
    "INSERT": _CHANGE,
    "UPDATE": _CHANGE,
    "DELETE": _CHANGE,
    "MERGE": _CHANGE,
    "DROP": _CHANGE,
    "CREATE": _CHANGE,
    "ALTER": _CHANGE,
    "TRUNCATE": _CHANGE,
    "SET": _SETTING,
    "USE": _SETTING,
    "SHOW": _SETTING,
    "DESCRIBE": _SETTING,
    "EXPLAIN": _SETTING,
    "PRAGMA": _SETTING,
    "VALUES": _SETTING,
    "COPY": _SETTING,
}
