"""How much of one request is taken. What is beyond is cut or refused, and counted: a sender that says too much must
not take what others need."""

from __future__ import annotations

from typing import Final

ATTRIBUTES_MAX: Final = 128
"""Of one span, log line, event, link, scope or resource; OpenTelemetry's own default."""
KEY_CHARACTERS_MAX: Final = 256
TEXT_CHARACTERS_MAX: Final = 16 * 1024
"""Of one value, name or message."""
ITEMS_MAX: Final = 1024
"""Of one array or nested map."""
DEPTH_MAX: Final = 16
EVENTS_MAX: Final = 128
LINKS_MAX: Final = 128
OBJECTS_MAX: Final = 250_000
"""In one request, attributes among them: an empty one takes two bytes on the wire and a hundred here."""
BUCKETS_MAX: Final = 512
SERVICES_MAX: Final = 256
SERIES_MAX: Final = 20_000
METRICS_MAX: Final = 1_000
"""Of different names, of all services together."""
NUMBERS_MAX: Final = 400_000
"""Of which so many numbers are remembered: a histogram has one for each bucket."""
EXPANDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""A resource stands once in a request and with each span in the store."""
BATCH_MAX: Final = 1_000
"""Spans or log lines handed on at once, so that what has no room is a part and not all."""
TIMES_MAX: Final = 64
"""Different times of measurements in one request."""


class MalformedError(ValueError):
    """The bytes are not what they are said to be."""


class TooMuchError(ValueError):
    """The request has more in it than is taken at once."""
