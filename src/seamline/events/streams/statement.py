"""What a query may say: one SELECT, and functions that only compute.

This looks at words, not at meaning: which tables are read is decided by the store, from its own plan. The list of
functions is short because some of PostgreSQL's run SQL that they are given, or change the session.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from seamline.events.streams.views import QueryRefused

STATEMENT_CHARS_MAX: Final = 20_000

_FUNCTIONS_WORDS: Final = """
abs avg cast ceil ceiling char_length coalesce concat count cume_dist date_bin date_trunc dense_rank exp extract
first_value floor format greatest iif ifnull json_array_length json_each json_extract json_group_array json_agg
json_array_elements json_array_elements_text json_object julianday lag last_value lead least length ln log lower
ltrim max min mod nth_value ntile nullif percent_rank percentile_cont percentile_disc pow power printf rank replace
round row_number rtrim sign sqrt strftime string_agg group_concat substr substring sum to_char to_timestamp total
trim trunc unixepoch upper
"""
FUNCTIONS: Final = frozenset(_FUNCTIONS_WORDS.split())
_BEFORE_A_BRACKET_WORDS: Final = """
all and any as between by case distinct else except exists filter from group having in inner intersect join lateral
left like limit not null offset on or order outer over partition recursive right rows select some then union using
values when where window with within materialized range groups is end full cross natural numeric decimal varchar
char
"""
_BEFORE_A_BRACKET: Final = frozenset(_BEFORE_A_BRACKET_WORDS.split())
_WORD: Final = re.compile(
    r"""(?P<blank>\s+|--[^\n]*|/\*.*?\*/)"""
    r"""|(?P<text>'(?:[^']|'')*')"""
    r"""|(?P<quoted>"(?:[^"]|"")*")"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<other>[()\[\],.;:*/%+<>=!|&~^?@#-]|\$)""",
    re.DOTALL,
)


def check_statement(statement: str) -> str:
    """The statement without a semicolon at its end. Raises QueryRefused."""
    if len(statement) > STATEMENT_CHARS_MAX:
        raise QueryRefused(
            reason=f"the statement has {len(statement)} characters",
            remedy=f"At most {STATEMENT_CHARS_MAX} are read; values come as parameters.",
        )
    words = _words(statement)
    if not words or words[0][1].lower() not in {"select", "with"}:
        raise QueryRefused(reason="the statement is not a SELECT", remedy="Views are read-only: begin with SELECT.")
    ended = next((index for index, (_, word) in enumerate(words) if word == ";"), len(words))
    if ended < len(words) - 1:
        raise QueryRefused(reason="there is more than one statement", remedy="Send them one by one.")
    for (kind, word), (_, following) in pairwise(words):
        if following == "(" and kind in {"name", "quoted"}:
            _check_call(kind, word)
    return statement if ended == len(words) else statement[: statement.rindex(";")]


def _check_call(kind: str, word: str) -> None:
    name = word.strip('"').lower()
    if name in FUNCTIONS or (kind == "name" and name in _BEFORE_A_BRACKET):
        return
    raise QueryRefused(
        reason=f"the function {name!r} may not be used in a query of views",
        remedy=f"These may: {', '.join(sorted(FUNCTIONS))}. In WITH, write `name AS (...)` without columns.",
    )


def _words(statement: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(statement):
        match = _WORD.match(statement, at)
        if match is None:
            raise QueryRefused(
                reason=f"the statement cannot be read at {statement[at : at + 20]!r}",
                remedy="Write plain SQL: quotes closed, no escapes, parameters as :name.",
            )
        kind = str(match.lastgroup)
        if kind != "blank":
            found.append((kind, match[0]))
        at = match.end()
    for (_, word), (kind, _) in pairwise(found):
        # E'..' and U&"..." hide what they say; $tag$ is refused above by its lone dollar.
        if word == "$" or (kind == "text" and word.lower() in {"e", "b", "x", "n"}) or word == "&":
            raise QueryRefused(
                reason=f"the statement has {word!r} in a place that is not read",
                remedy="Write plain SQL: no escapes, no dollar quotes, parameters as :name.",
            )
    return found
