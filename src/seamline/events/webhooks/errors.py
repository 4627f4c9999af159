"""What can be wrong with webhooks.

WebhookError                 SL7500  an event could not be delivered now; it is tried again
  WebhookSecretError         SL7501  a secret is not one that Standard Webhooks knows
  WebhookSignatureError      SL7502  what was received was not signed by whom it should be
  WebhookAddressError        SL7503  the receiver's address is private, and it is not said that it may be
  WebhookRefusedError        SL7504  the receiver wants no more of it
"""

from __future__ import annotations

from seamline.events.errors import EventsError


class WebhookError(EventsError):
    """SL7500: an event could not be delivered now; it is tried again, and in the end goes to the dead letters."""

    code = "SL7500"


class WebhookSecretError(WebhookError):
    """SL7501: a secret is not one that Standard Webhooks knows: ``whsec_``, ``whsk_`` or ``whpk_`` and base64."""

    code = "SL7501"


class WebhookSignatureError(WebhookError):
    """SL7502: what was received is unsigned, signed by somebody else, or too old."""

    code = "SL7502"


class WebhookAddressError(WebhookError):
    """SL7503: a receiver's name leads to a private address, and ``private = true`` does not stand at its webhook."""

    code = "SL7503"


class WebhookRefusedError(WebhookError):
    """SL7504: the receiver answered 410, or with a redirection: it wants no more at this address."""

    code = "SL7504"
    hopeless = True
