"""What can be wrong with the signature of a message that is sent over HTTP.

WebhookSecretError           SL7501  a secret is not one that Standard Webhooks knows
WebhookSignatureError        SL7502  what was received was not signed by whom it should be
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class WebhookSecretError(SeamlineError):
    """SL7501: a secret is not one that Standard Webhooks knows: ``whsec_``, ``whsk_`` or ``whpk_`` and base64."""

    code = "SL7501"


class WebhookSignatureError(SeamlineError):
    """SL7502: what was received is unsigned, signed by somebody else, or too old."""

    code = "SL7502"
