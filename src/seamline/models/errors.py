"""Errors of models.

::

  ModelError                SL7700
    ModelAnswerError        SL7701  a model did not answer as its contract says
    ModelLoadError          SL7702  a model could not be loaded
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class ModelError(SeamlineError):
    """SL7700: something about a model."""

    code = "SL7700"


class ModelAnswerError(ModelError):
    """SL7701: a model did not answer as its contract says."""

    code = "SL7701"


class ModelLoadError(ModelError):
    """SL7702: a model could not be loaded."""

    code = "SL7702"
