"""Streams: events cut into windows of event time, joined, aggregated, and shown as views that are queried with SQL.

State is rows of the module's own database, written in the transaction that notes the events as handled: what survives
a crash is what was counted, once. What happens to single events is an event handler's work, not this room's.
"""

from seamline.events.streams.aggregates import Aggregate, Cell, avg, count, distinct, fold, max_, min_, sum_, top_k
from seamline.events.streams.service import ViewsService
from seamline.events.streams.stream import Pair, Stream, stream
from seamline.events.streams.view import ClosedWindow, View, materialise
from seamline.events.streams.views import QueryRefused, Views, views_contract
from seamline.events.streams.windows import Window, session, sliding, tumbling

__all__ = [
    "Aggregate",
    "Cell",
    "ClosedWindow",
    "Pair",
    "QueryRefused",
    "Stream",
    "View",
    "Views",
    "ViewsService",
    "Window",
    "avg",
    "count",
    "distinct",
    "fold",
    "materialise",
    "max_",
    "min_",
    "session",
    "sliding",
    "stream",
    "sum_",
    "top_k",
    "tumbling",
    "views_contract",
]
