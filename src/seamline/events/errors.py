"""What can be wrong with events.

    EventsError              SL7200
      UndeclaredEventError   SL7201  an event is published by a module that does not declare it
      BrokerError            SL7202  the broker does not answer, or refuses us
      BrokerUrlError         SL7203  the broker's url cannot be used, or its client is not installed
      EventDecodeError       SL7204  an event does not fit its schema; it goes to the dead letters
      DamagedLogError        SL7205  a record of the log does not have the checksum it was written with
      LogFullError           SL7206  there is no room to store an event; nothing was accepted
      LostLeaseError         SL7207  a partition went to another process while its events were handled
      UnknownGroupError      SL7208  there is no such consumer group, topic or dead letter
      EventEncodeError       SL7209  an event holds a value that its consumers could not read
      CloudEventError        SL7210  what was received is not a CloudEvent, or not one that can be taken
      EventTooLargeError     SL7211  an event is larger than the broker takes
      DeadlyEventError       SL7212  the process died each time the event was handled; it goes to the dead letters
      RevokedEventError      SL7213  on whose behalf it was published is no longer good; it goes to the dead letters

BrokerError, LogFullError and LostLeaseError heal by themselves when what they name does; the others do not.
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError
from seamline.kernel.store.errors import DiskFullError


class EventsError(SeamlineError):
    """SL7200: an event could not be published, delivered or read."""

    code = "SL7200"
    hopeless: bool = False
    """Where a handler raises it: trying again changes nothing, the event goes to the dead letters at once."""
    retry_after_s: float = 0.0
    """Where a handler raises it: the event is tried again no sooner."""
    attempts: int = 0
    """Where a handler raises it: how often it has tried, if it knows of more than this process did."""


class UndeclaredEventError(EventsError):
    """SL7201: an event is published by a module that does not declare it."""

    code = "SL7201"


class BrokerError(EventsError):
    """SL7202: the broker does not answer, or refuses us."""

    code = "SL7202"


class BrokerUrlError(EventsError):
    """SL7203: the broker's url cannot be used, or its client is not installed."""

    code = "SL7203"

    def __init__(self, fact: str, remedy: str = "", *, place: str | None = "seamline.toml [events] broker") -> None:
        super().__init__(fact, remedy, place=place)


class EventDecodeError(EventsError):
    """SL7204: an event does not fit its schema; it goes to the dead letters."""

    code = "SL7204"
    hopeless = True


class DamagedLogError(EventsError):
    """SL7205: a record of the log does not have the checksum it was written with."""

    code = "SL7205"


class LogFullError(EventsError, DiskFullError):
    """SL7206: there is no room to store an event; nothing was accepted."""

    code = "SL7206"


class LostLeaseError(EventsError):
    """SL7207: a partition went to another process while its events were handled; its effect was not kept."""

    code = "SL7207"


class UnknownGroupError(EventsError):
    """SL7208: there is no such consumer group, topic or dead letter."""

    code = "SL7208"


class EventEncodeError(EventsError):
    """SL7209: an event holds a value that its consumers could not read; it was not published."""

    code = "SL7209"


class CloudEventError(EventsError):
    """SL7210: what was received is not a CloudEvent, or not one that can be taken."""

    code = "SL7210"


class EventTooLargeError(EventsError):
    """SL7211: an event is larger than the broker takes; none of its batch was published."""

    code = "SL7211"


class DeadlyEventError(EventsError):
    """SL7212: the process died each time the event was handled; it goes to the dead letters."""

    code = "SL7212"
    hopeless = True


class RevokedEventError(EventsError):
    """SL7213: the user on whose behalf the event was published was revoked, or the proof of it is not good.

    It goes to the dead letters, where a person decides.
    """

    code = "SL7213"
    hopeless = True
