"""What is in the way of a drill.

DrillError                  SL7640
  DrillRefusedError         SL7641  a fault that cannot, or may not, be planted there
  DrillScoreError           SL7642  the drills cannot be scored: nothing watches the application
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class DrillError(SeamlineError):
    """SL7640: something is in the way of a drill."""

    code = "SL7640"


class DrillRefusedError(DrillError):
    """SL7641: the fault cannot, or may not, be planted there.

    Where others can reach the application, an admin has to say ``--yes``.
    """

    code = "SL7641"


class DrillScoreError(DrillError):
    """SL7642: the drills cannot be scored: nothing watches the application, or it has no load."""

    code = "SL7642"
