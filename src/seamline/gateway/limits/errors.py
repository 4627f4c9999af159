"""What goes wrong with limits.

LimitsError             SL6300  limits cannot be kept as they are written
  SharedStoreError      SL6301  the store that gateways share cannot be reached: each counts by itself
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class LimitsError(SeamlineError):
    """SL6300: limits cannot be kept as they are written."""

    code = "SL6300"


class SharedStoreError(LimitsError):
    """SL6301: the store that adds up what several gateways count cannot be reached.

    Nobody is refused for it: each gateway limits by what it has counted itself until the store is back.
    """

    code = "SL6301"
