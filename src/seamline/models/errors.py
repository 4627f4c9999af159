"""Errors of models that more than one room raises; each room has its own besides.

::

  ModelError                SL7700
    ModelAnswerError        SL7701  a model did not answer as its contract says
    ModelLoadError          SL7702  a model could not be loaded
    ExtraMissingError       SL7710  what a model runs on is not installed
    EngineError             SL7770  an engine did not answer
      EngineUnreachable     SL7771  nobody answers there, or the connection broke
      EngineRefused         SL7772  it said no: too many, too much, not allowed, or unwell
      EngineMalformed       SL7773  its answer cannot be understood
      EngineStalled         SL7774  it began to answer, or did not, and then nothing came
      EngineCannotError     SL7775  it has no such ability
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


class ExtraMissingError(ModelError):
    """SL7710: what a model runs on is not installed."""

    code = "SL7710"


class EngineError(ModelError):
    """SL7770: an engine did not answer."""

    code = "SL7770"
    retry_after_s: float = 0.0
    """When it said that it may be asked again; zero if it did not."""
    status: int = 0
    """HTTP's, if it answered at all."""


class EngineUnreachable(EngineError):
    """SL7771: nobody answers there, or the connection broke."""

    code = "SL7771"


class EngineRefused(EngineError):
    """SL7772: it said no; ``status`` and ``kind`` say why."""

    code = "SL7772"
    kind: str = ""
    """In the engine's words: ``rate_limit_exceeded``, ``context_length_exceeded``, ``overloaded_error``."""


class EngineMalformed(EngineError):
    """SL7773: its answer cannot be understood."""

    code = "SL7773"


class EngineStalled(EngineError):
    """SL7774: nothing came for longer than it may take."""

    code = "SL7774"


class EngineCannotError(EngineError):
    """SL7775: it has no such ability."""

    code = "SL7775"
