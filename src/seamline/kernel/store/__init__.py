"""A module's data: its own SQLite file, or its own schema and role in PostgreSQL, and its migrations.

Which module may see whose data is decided by what each is given; joins across modules cannot be written.
The log of events and the journal of sagas are not here: they use this.
"""

from __future__ import annotations

from seamline.kernel.store.database import Database, sqlite_url
from seamline.kernel.store.errors import StoreError
from seamline.kernel.store.migrations import prepare

__all__ = ["Database", "StoreError", "prepare", "sqlite_url"]
