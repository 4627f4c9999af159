"""What can be wrong with features.

::

  ModelError                    SL7700
    FeatureError                SL7760  features cannot be had
      FeatureDeclarationError   SL7761  features are declared in a way that cannot work
      FeatureStateError         SL7762  what is stored of features does not fit the code
"""

from __future__ import annotations

from seamline.models.errors import ModelError


class FeatureError(ModelError):
    """SL7760: features cannot be had."""

    code = "SL7760"


class FeatureDeclarationError(FeatureError):
    """SL7761: features are declared in a way that cannot work."""

    code = "SL7761"


class FeatureStateError(FeatureError):
    """SL7762: what is stored of features does not fit the code."""

    code = "SL7762"
