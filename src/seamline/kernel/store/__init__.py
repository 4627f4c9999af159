"""A module's data: its own SQLite file, or its own schema and role in PostgreSQL, and its migrations.

Which module may see whose data is decided by what each is given; joins across modules cannot be written.
The log of events and the journal of sagas are not here: they use this.
"""

from __future__ import annotations

from seamline.kernel.store.combine import Combiner
from seamline.kernel.store.database import Database, sqlite_url
from seamline.kernel.store.errors import StoreError
from seamline.kernel.store.migrations import prepare
from seamline.kernel.store.postgresql import Login
from seamline.kernel.store.sqlite_dialect import raw_in
from seamline.kernel.store.unit import Unit, set_scope_source

__all__ = ["Combiner", "Database", "Login", "StoreError", "Unit", "prepare", "raw_in", "set_scope_source", "sqlite_url"]
