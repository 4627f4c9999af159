"""Where telemetry is kept: SQLite for what is recent, Parquet files for what is past, both within a size and an age.

One process writes (:class:`TelemetryStore`), any may read (:class:`TelemetryReader`), also when nothing runs. What
arises where is not this room's business, and neither is what it means.
"""

from seamline.observe.store.reader import TelemetryReader
from seamline.observe.store.writer import TelemetryStore

__all__ = ["TelemetryReader", "TelemetryStore"]
