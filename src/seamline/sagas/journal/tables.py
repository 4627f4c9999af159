"""The tables of sagas in a module's own database: who they are, what they did, what was said to them, who runs them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, and_

TABLES = MetaData()

sagas = Table(
    "seamline_sagas",
    TABLES,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    # The worker that runs it; none while it sleeps or is free to be taken from `due_ms` on.
    Column("owner", Text),
    Column("due_ms", BigInteger),
    # How many messages were ever sent to it.
    Column("messages", Integer, nullable=False, server_default="0"),
    Column("run", Integer, nullable=False, server_default="1"),
    Column("created_ms", BigInteger, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False, server_default="0"),
    Column("input", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
    Column("result", Text, nullable=False, server_default=""),
    Column("work", Text, nullable=False, server_default=""),
    Column("stuck", Text, nullable=False, server_default=""),
    Column("trace", Text, nullable=False, server_default=""),
    Column("parent", Text, nullable=False, server_default=""),
    # The proof of on whose behalf it was started.
    Column("subject", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)
Index("seamline_sagas_by_key", sagas.c.type, sagas.c.key, unique=True,
      sqlite_where=sagas.c.key != "", postgresql_where=sagas.c.key != "")  # fmt: skip
_active = sagas.c.ended_ms == 0
Index("seamline_sagas_active", sagas.c.owner, sagas.c.due_ms, sqlite_where=_active, postgresql_where=_active)
_stuck = and_(sagas.c.stuck != "", sagas.c.ended_ms == 0)
Index("seamline_sagas_stuck", sagas.c.id, sqlite_where=_stuck, postgresql_where=_stuck)

journal = Table(
    "seamline_saga_journal",
    TABLES,
    Column("saga", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("crc", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

messages = Table(
    "seamline_saga_messages",
    TABLES,
    Column("saga", Text, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

workers = Table(
    "seamline_saga_workers",
    TABLES,
    Column("owner", Text, primary_key=True),
    Column("beat", BigInteger, nullable=False),
)

heard = Table(
    "seamline_saga_events",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False, index=True),
)

waits = Table(
    "seamline_saga_waits",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("saga", Text, primary_key=True, index=True),
)

meta = Table("seamline_saga_format", TABLES, Column("format", Integer, primary_key=True))
