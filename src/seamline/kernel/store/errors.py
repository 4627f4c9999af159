"""What can be wrong with a module's data.

    StoreError               SL7000
      UrlError               SL7001  the database's url cannot be used
      FolderError            SL7002  the folder of the database file cannot be written
      DriverMissingError     SL7003  the driver of the url is not installed
      ServerError            SL7004  the database server does not answer, or refuses us
      NotStartedError        SL7005  the database is used before start or after close
      WriterBusyError        SL7006  another transaction held the database for too long
      NestedTransactionError SL7007  a task opened a transaction inside its own transaction
      ReadOnlyError          SL7008  something was written inside ``read()``
      DamagedFileError       SL7009  the file is not a SQLite database, or is damaged
      DiskFullError          SL7010  there is no room for what was written; nothing of it was kept
      MigrationPendingError  SL7101  the tables are older than the code
      MigrationFailedError   SL7102  a revision raised; nothing of it was kept
      MigrationUnknownError  SL7103  the tables are newer than the code
      MigrationFilesError    SL7104  the revision files do not make one line

Everything but WriterBusyError, ServerError and DiskFullError is a mistake that trying again does not heal.
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class StoreError(SeamlineError):
    """SL7000: a module's data could not be reached or changed."""

    code = "SL7000"


class UrlError(StoreError):
    """SL7001: the database's url cannot be used."""

    code = "SL7001"


class FolderError(StoreError):
    """SL7002: the folder of the database file cannot be written."""

    code = "SL7002"


class DriverMissingError(StoreError):
    """SL7003: the driver of the url is not installed."""

    code = "SL7003"


class ServerError(StoreError):
    """SL7004: the database server does not answer, or refuses us."""

    code = "SL7004"


class NotStartedError(StoreError):
    """SL7005: the database is used before start or after close."""

    code = "SL7005"


class WriterBusyError(StoreError):
    """SL7006: another transaction held the database for too long."""

    code = "SL7006"


class NestedTransactionError(StoreError):
    """SL7007: a task opened a transaction inside its own transaction."""

    code = "SL7007"


class ReadOnlyError(StoreError):
    """SL7008: something was written inside ``read()``."""

    code = "SL7008"


class DamagedFileError(StoreError):
    """SL7009: the file is not a SQLite database, or is damaged."""

    code = "SL7009"


class DiskFullError(StoreError):
    """SL7010: there is no room for what was written; nothing of it was kept."""

    code = "SL7010"


class MigrationPendingError(StoreError):
    """SL7101: the tables are older than the code."""

    code = "SL7101"


class MigrationFailedError(StoreError):
    """SL7102: a revision raised; nothing of it was kept."""

    code = "SL7102"


class MigrationUnknownError(StoreError):
    """SL7103: the tables are newer than the code."""

    code = "SL7103"


class MigrationFilesError(StoreError):
    """SL7104: the revision files do not make one line."""

    code = "SL7104"
