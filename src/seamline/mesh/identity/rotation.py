"""When to ask for the next certificate, and how much the clocks of two machines may differ."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

CLOCK_SKEW = timedelta(minutes=5)
"""What the clocks of two machines may differ by, in either direction."""

BACKDATE = CLOCK_SKEW + timedelta(minutes=1)
"""How far before its making a certificate begins to be valid: the skew, and a minute for slow starts."""


def next_rotation(not_before: datetime, not_after: datetime, random: Random) -> datetime:
    """A moment at 40 to 60 % of the time for which a certificate is of use, so that modules do not all come at once.

    A certificate of an hour then has 24 minutes left at least, which a clock five minutes ahead survives.
    """
    made = not_before + BACKDATE
    if made >= not_after:  # not one of ours: it was not backdated
        made = not_before
    return made + (not_after - made) * random.uniform(0.4, 0.6)
