"""What can be wrong with JSON of others.

::

  ModelError                SL7700
    WireError               SL7776  a request that is not in the wire's form, or that our words have no place for

What is wrong with an engine's answer is :class:`~seamline.models.errors.EngineMalformed`.
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class WireError(ModelError):
    """SL7776: a request is not in the form of its wire, or asks for what has no place here."""

    code = "SL7776"
    param: str = ""
    """Which field, where one is at fault."""
