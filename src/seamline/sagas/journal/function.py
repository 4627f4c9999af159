"""A group of writes as one function in the module's PostgreSQL schema: one round trip, which is one transaction.

A process that stands still can therefore hold no lock of the journal: whoever takes its sagas over waits for nobody.
"""

# ruff: noqa: S608  # names and statements of this room; every value is bound

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Final
from zlib import crc32

from seamline.sagas.journal.statements import FOUND_BY_KEY, ORDER, POST, POST_BODY, STATEMENTS, filled

_INSERT: Final = re.compile(r"(?P<into>INSERT .*) VALUES \((?P<values>.*)\) (?P<conflict>ON CONFLICT DO NOTHING)")


def _fields() -> Iterator[str]:
    return (f"(row_ ->> {place})" for place in count())


def _loop(kind: str, body: str) -> str:
    return f"""
  IF $2 ? '{kind}' THEN
    FOR row_ IN SELECT value FROM jsonb_array_elements($2 -> '{kind}') LOOP
      {body}
    END LOOP;
  END IF;"""


def _part(kind: str) -> str:
    """A kind's rows, one after another; what is only inserted goes at once, which is a third of the work."""
    sql = filled(STATEMENTS[kind], _fields())
    found = _INSERT.fullmatch(sql)
    if found is None:
        return _loop(kind, f"{sql};")
    return f"""
  IF $2 ? '{kind}' THEN
    {found["into"]} SELECT {found["values"]} FROM jsonb_array_elements($2 -> '{kind}') AS row_ {found["conflict"]};
  END IF;"""


def _post() -> str:
    saga, *rest = (f"(row_ ->> {place})" for place in range(5))
    body = f"""{filled(POST, [saga])} INTO number_;
      IF FOUND THEN {filled(POST_BODY, [saga, "number_", *rest])}; END IF;"""
    return _loop("post", body)


_BODY: Final = f"""
#variable_conflict use_column
DECLARE
  row_ jsonb;
  number_ integer;
BEGIN
  -- Whoever takes sagas over deletes the worker's row, and waits for what was begun before.
  held := ARRAY(SELECT owner FROM seamline_saga_workers WHERE owner = ANY($1) ORDER BY owner FOR KEY SHARE);
  IF cardinality(held) < cardinality($1) THEN
    RETURN;
  END IF;
{"".join(map(_part, ORDER))}
{_post()}
  ids := ARRAY(
    SELECT ({filled(FOUND_BY_KEY, ["(wanted.value ->> 0)", "(wanted.value ->> 1)"])} AND key <> '')
    FROM jsonb_array_elements($3) WITH ORDINALITY AS wanted(value, place) ORDER BY wanted.place
  );
END
"""

NAME: Final = f"seamline_saga_write_{crc32(_BODY.encode()):08x}"
"""Of this release: one that has other statements has a function of its own beside it."""

CREATE: Final = f"""
CREATE OR REPLACE FUNCTION {NAME}(owners text[], rows_ jsonb, keys jsonb, OUT held text[], OUT ids text[])
LANGUAGE plpgsql AS $body${_BODY}$body$"""

CALL: Final = f"SELECT held, ids FROM {NAME}($1, CAST($2 AS jsonb), CAST($3 AS jsonb))"
"""With the workers that must have their place, rows by kind, and the keys that sagas were started with.

Gives the workers that have their place, and the sagas of the keys: none, and nothing is written, where a worker has
lost it.
"""
