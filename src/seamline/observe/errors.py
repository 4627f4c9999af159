"""What can be wrong with observing.

    ObserveError                SL7600
      TelemetryMissingError     SL7601  nothing has been kept yet: there is no store in the data folder
      QueryTooLongError         SL7602  a question to the store took longer than it may; nothing was answered
      BadQueryError             SL7603  a question to the store cannot be understood
      HistoryError              SL7604  what was sealed cannot be read
      NotifyError               SL7620  a receiver of incidents cannot be used

None of them touches the application: telemetry that cannot be kept is dropped and counted.
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class ObserveError(SeamlineError):
    """SL7600: telemetry could not be kept or read."""

    code = "SL7600"


class TelemetryMissingError(ObserveError):
    """SL7601: nothing has been kept yet: there is no store in the data folder."""

    code = "SL7601"


class QueryTooLongError(ObserveError):
    """SL7602: a question to the store took longer than it may, and was broken off."""

    code = "SL7602"


class BadQueryError(ObserveError):
    """SL7603: a question to the store cannot be understood: a cursor, an id, a time."""

    code = "SL7603"


class HistoryError(ObserveError):
    """SL7604: what was sealed to Parquet cannot be read: DuckDB is missing or too slow, or a file is damaged."""

    code = "SL7604"


class NotifyError(ObserveError):
    """SL7620: a receiver in ``notify`` cannot be used: its address is none, or what it needs is missing."""

    code = "SL7620"
