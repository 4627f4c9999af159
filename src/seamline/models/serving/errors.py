"""What can go wrong where models are served.

    ModelError                SL7700
      WorkerLost              SL7703  the process of a model ended while it answered
      PoisonError             SL7704  a call ended the process that answered it, twice
      WorkerRaised            SL7705  a model raised an error in a process of its own

WorkerLost heals by itself: the process is started again. To callers it is Unavailable, as when the whole module has
gone; the others are InternalError.
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class WorkerLost(ModelError):
    """SL7703: the process of a model ended while it answered."""

    code = "SL7703"
    blameless: bool = False
    """It was ended on account of another call."""


class PoisonError(ModelError):
    """SL7704: a call ended the process that answered it, twice; it is refused for some minutes."""

    code = "SL7704"


class WorkerRaised(ModelError):
    """SL7705: a model raised an error in a process of its own, whose log has the traceback."""

    code = "SL7705"
