"""What can be wrong with what a model runs on.

::

  ModelError               SL7700
    ExtraMissingError      SL7710  what a model runs on is not installed
    WeightsError           SL7711  a file of weights is damaged, or not what it should be
    ArchitectureError      SL7712  the weights are of a model that cannot be run here
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class WeightsError(ModelError):
    """SL7711: a file of weights is damaged, or not what it should be."""

    code = "SL7711"


class ArchitectureError(ModelError):
    """SL7712: the weights are of a model that cannot be run here."""

    code = "SL7712"
