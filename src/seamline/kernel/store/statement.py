"""What a statement does, without the values in it: for counts, spans and people, who must not read them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

READ_CHARACTERS_MAX: Final = 2_048
_ROW_CHARACTERS_MAX: Final = 256
TEXT_CHARACTERS_MAX: Final = 1_024
SUMMARY_CHARACTERS_MAX: Final = 160

_TOKEN: Final = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<value> (?:[eE]'(?:[^'\\]|''|\\.)*(?:'|\\?\Z)) | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z)
               | \$(?P<tag>[A-Za-z_]\w*)?\$.*?(?:\$(?P=tag)?\$|\Z)
               | 0[xX][0-9a-fA-F_]+ | (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)? )
    | (?P<name> (?:"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[A-Za-z_][^\]]*\]|[^\W\d][\w$]*)
                (?:\.(?:"(?:[^"]|"")*(?:"|\Z)|[^\W\d][\w$]*))* )
    | (?P<bound> \?\d* | \$\d+ | :{1}(?!:)[A-Za-z_]\w* | @[A-Za-z_]\w* | %(?:s|\(\w+\)s) )
    | (?P<other> ::|. )
    """,
    re.VERBOSE | re.DOTALL,
)
_LIST: Final = re.compile(r"\((?:[?] ?(?:::\w+)?, ?)+[?] ?(?:::\w+)?\)")
_ROWS: Final = re.compile(r"\(\?, …\)(?:, \(\?, …\))+")
# fmt: off
_VERBS: Final = frozenset({
    "SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE", "CALL", "COPY",
    "VALUES", "PRAGMA", "EXPLAIN", "ANALYZE", "VACUUM", "SET", "SHOW", "LOCK", "LISTEN", "NOTIFY", "SAVEPOINT",
    "RELEASE", "ROLLBACK", "BEGIN", "COMMIT", "GRANT", "REVOKE", "DO",
})
# fmt: on
_BEFORE_TABLES: Final = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "CALL", "COPY", "PRAGMA"})
_BETWEEN: Final = frozenset({"ONLY", "LATERAL", "IF", "NOT", "EXISTS"})
_VALUES: Final = re.compile(r"\bVALUES\s*\(", re.IGNORECASE)


class Shape(NamedTuple):
    """``operation`` is the verb, ``summary`` verbs with the tables they name, ``text`` the statement with ``?`` for
    every value."""

    operation: str
    summary: str
    text: str


def shape_of(sql: str, *, quotes_values: bool = False) -> Shape:
    """Reads the beginning only. What cannot be told apart from a value is taken for one.

    Args:
        quotes_values: whether ``"this"`` may be a value, as in SQLite, which takes it for one where no name fits.
    """
    begun = _VALUES.search(sql, 0, READ_CHARACTERS_MAX)  # many rows at once make long statements
    read = sql[: READ_CHARACTERS_MAX if begun is None else begun.end() + _ROW_CHARACTERS_MAX]
    words: list[str] = []
    text: list[str] = []
    operation, depth, awaits_table = "", 0, False
    for token in _TOKEN.finditer(read):
        kind, found = token.lastgroup, token[0]
        if kind == "blank":
            if text and text[-1] != " ":
                text.append(" ")
            continue
        quoted = kind == "name" and quotes_values and found.startswith('"') and not awaits_table
        if quoted or kind in {"value", "tag", "bound"}:
            text.append("?")
            awaits_table = False
            continue
        text.append(found)
        word = found.upper()
        if kind != "name":
            depth += (found == "(") - (found == ")")
            awaits_table = awaits_table and found == "("
        elif word in _VERBS and (word == "SELECT" or not operation):
            words.append(word)
            operation = operation or ("" if depth else word)
            awaits_table = word in _BEFORE_TABLES
        elif word in _BEFORE_TABLES and word != "UPDATE":  # that of a FOR UPDATE names none
            awaits_table = True
        elif awaits_table and word not in _BETWEEN:
            words.append(found.replace('"', ""))
            awaits_table = False
    operation = operation or (words[0] if words else "OTHER")
    shown = _ROWS.sub("(?, …), …", _LIST.sub("(?, …)", "".join(text).strip()))
    if len(read) < len(sql):
        shown += "…"
    return Shape(
        operation, _cut(" ".join(words) or operation, SUMMARY_CHARACTERS_MAX), _cut(shown, TEXT_CHARACTERS_MAX)
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
