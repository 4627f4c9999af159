"""Packages that a runtime needs, imported when it is first used."""

from __future__ import annotations

import importlib
from typing import Any

from seamline.models.errors import ExtraMissingError


def required(package: str, extra: str = "models") -> Any:
    """The module ``package``, typed as anything since few of them have types.

    Raises:
        ExtraMissingError: it is not installed; ``seamline[extra]`` brings it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExtraMissingError(
            f"{package.partition('.')[0]} is not installed: {error}", f"pip install 'seamline[{extra}]'"
        ) from error
