"""What can be wrong with watching a model.

::

  ModelError             SL7700
    WatchError           SL7750  a model cannot be watched as was asked
      ReferenceUnfit     SL7751  what a model is compared with cannot be used
      JudgementError     SL7752  a judge did not judge
      CaptureError       SL7753  a dataset cannot be captured or read
      ReplayError        SL7754  what was decided cannot be decided again
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class WatchError(ModelError):
    """SL7750: a model cannot be watched as was asked."""

    code = "SL7750"


class ReferenceUnfit(WatchError):
    """SL7751: what a model is compared with cannot be used."""

    code = "SL7751"


class JudgementError(WatchError):
    """SL7752: a judge did not judge."""

    code = "SL7752"


class CaptureError(WatchError):
    """SL7753: a dataset cannot be captured or read."""

    code = "SL7753"


class ReplayError(WatchError):
    """SL7754: what was decided cannot be decided again."""

    code = "SL7754"
