"""What the AI gateway says no to, and how it tells: ``status`` is HTTP's, ``kind`` is what clients look at.

::

  ModelError                SL7700
    AiGatewayError          SL7740
      KeyRefused            SL7741  401  no key, or one that is unknown, revoked or expired
      NotAllowed            SL7742  403  the key is good, and not for this
      BudgetExceeded        SL7743  429  a budget, a quota or a rate is used up
      Blocked               SL7744  400  a guardrail said no
      TooLarge              SL7745  413  a request is larger than may be
      AnswerUnfit           SL7746  502  the answer does not fit the schema that was asked for, after all repairs
      NoTarget              SL7747  503  no engine could be asked, or none answered
      UnknownModel          SL7748  404  no model has this name
      BadRequest            SL7749  400  the request cannot be understood
"""

from __future__ import annotations

from typing import ClassVar

from seamline.models.errors import ModelError


class AiGatewayError(ModelError):
    """SL7740: the AI gateway did not let a call through, or could not answer it."""

    code = "SL7740"
    status: ClassVar[int] = 500
    kind: str = "api_error"
    retry_after_s: float = 0.0
    """When it may be asked again; zero if that would change nothing."""


class KeyRefused(AiGatewayError):  # said of the key
    """SL7741: there is no key, or it is unknown, revoked or expired."""

    code = "SL7741"
    status = 401
    kind = "invalid_api_key"


class NotAllowed(AiGatewayError):
    """SL7742: the key is good, and not for this."""

    code = "SL7742"
    status = 403
    kind = "permission_denied"


class BudgetExceeded(AiGatewayError):
    """SL7743: a budget, a quota or a rate is used up; ``retry_after_s`` is when its next window begins."""

    code = "SL7743"
    status = 429
    kind: str = "insufficient_quota"
    limit: str = ""
    """Its name."""


class Blocked(AiGatewayError):
    """SL7744: a guardrail said no."""

    code = "SL7744"
    status = 400
    kind = "content_policy_violation"
    step: str = ""
    """The guardrail's name."""


class TooLarge(AiGatewayError):
    """SL7745: a request is larger than may be."""

    code = "SL7745"
    status = 413
    kind = "request_too_large"


class AnswerUnfit(AiGatewayError):
    """SL7746: the answer does not fit the schema that was asked for, after all repairs."""

    code = "SL7746"
    status = 502
    kind = "invalid_answer"


class NoTarget(AiGatewayError):
    """SL7747: no engine could be asked, or none answered."""

    code = "SL7747"
    status = 503
    kind = "service_unavailable"


class UnknownModel(AiGatewayError):
    """SL7748: no model has this name."""

    code = "SL7748"
    status = 404
    kind = "model_not_found"


class BadRequest(AiGatewayError):
    """SL7749: the request cannot be understood."""

    code = "SL7749"
    status = 400
    kind = "invalid_request_error"
