"""What can be wrong with streams and their views.

    StreamsError              SL7400
      StreamDeclarationError  SL7401  a stream or a view is declared in a way that cannot work
      StreamValueError        SL7402  an event gives a value that does not fit; it is put aside
      StreamStateError        SL7403  what is stored of a view does not fit the code

StreamDeclarationError and StreamStateError do not heal by trying again.
"""

from __future__ import annotations

from seamline.events.errors import EventsError


class StreamsError(EventsError):
    """SL7400: a stream could not be worked on."""

    code = "SL7400"


class StreamDeclarationError(StreamsError):
    """SL7401: a stream or a view is declared in a way that cannot work."""

    code = "SL7401"


class StreamValueError(StreamsError):
    """SL7402: an event gives a value that does not fit; it is put aside."""

    code = "SL7402"


class StreamStateError(StreamsError):
    """SL7403: what is stored of a view does not fit the code."""

    code = "SL7403"
