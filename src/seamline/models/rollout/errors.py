"""What can be wrong with who answers.

RolloutError           SL7730
  UnknownVersionError  SL7731  there is no such contract, or no such version of its model
  NoWayBackError       SL7732  there is nothing to roll back to
  BadSplitError        SL7733  shares that are none
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class RolloutError(ModelError):
    """SL7730: who answers could not be changed."""

    code = "SL7730"


class UnknownVersionError(RolloutError):
    """SL7731: no module provides such a contract with models, or it declares no such version."""

    code = "SL7731"


class NoWayBackError(RolloutError):
    """SL7732: the split was never another one, so there is nothing to roll back to."""

    code = "SL7732"


class BadSplitError(RolloutError):
    """SL7733: shares that are none: below zero, all zero, or of a version that is named twice."""

    code = "SL7733"
