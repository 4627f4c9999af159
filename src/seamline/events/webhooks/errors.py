"""What can be wrong with webhooks.

WebhookError                 SL7500  an event could not be delivered now; it is tried again
  WebhookAddressError        SL7503  the receiver's address is private, and it is not said that it may be
  WebhookRefusedError        SL7504  the receiver wants no more of it

Secrets and signatures have their errors in ``kernel.wire.errors``.
"""

from __future__ import annotations

from seamline.events.errors import EventsError


class WebhookError(EventsError):
    """SL7500: an event could not be delivered now; it is tried again, and in the end goes to the dead letters."""

    code = "SL7500"


class WebhookAddressError(WebhookError):
    """SL7503: a receiver's name leads to a private address, and ``private = true`` does not stand at its webhook."""

    code = "SL7503"


class WebhookRefusedError(WebhookError):
    """SL7504: the receiver answered 410, or with a redirection: it wants no more at this address."""

    code = "SL7504"
    hopeless = True
