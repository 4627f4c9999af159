"""What the backends of others share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

from seamline.secrets.errors import BadSecretError, ReadOnlyBackendError, SdkMissingError


def imported(name: str, extra: str) -> Any:
    """A library that only the users of a backend install. Raises SdkMissingError."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SdkMissingError(f"{name!r} is not installed", f'Run: pip install "seamline[{extra}]"') from error


def joined(path: str, name: str) -> str:
    return f"{path.strip('/')}/{name}" if path.strip("/") else name


def only_field(name: str, data: Mapping[str, Any]) -> bytes:
    """The field ``value``, or the only one there is. Raises BadSecretError."""
    found = data.get("value")
    if found is None and len(data) == 1:
        (found,) = data.values()
    if not isinstance(found, str | bytes):
        raise BadSecretError(
            f"the secret {name!r} has {len(data)} fields and none of them is the text 'value'",
            "Keep one value under each name, in the field `value`.",
        )
    return found.encode() if isinstance(found, str) else found


def read_only(label: str) -> NoReturn:
    raise ReadOnlyBackendError(f"{label} is not written to from here", "Use its own tools.")
