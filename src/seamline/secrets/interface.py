"""What the keeper asks of whatever keeps the values, and what it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from seamline.secrets.errors import BadSecretError
from seamline.secrets.secret import Secret

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]|/(?=[a-z0-9])){0,126}")


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """About one version, without its value."""

    version: str
    made_ms: int
    until_ms: int = 0
    by: str = ""
    gone: bool = False
    """Its value is destroyed."""


@dataclass(frozen=True, slots=True)
class SecretFacts:
    """About a secret, newest version first; a backend may know only the newest."""

    name: str
    versions: tuple[VersionFacts, ...]


class Backend(Protocol):
    """Keeps the values. Its methods are called in a thread, several at once.

    Raises UnknownSecretError, ReadOnlyBackendError, BackendDownError or BackendRefusedError.
    """

    label: str
    """For people: ``file``, ``vault at https://...``."""
    local: bool
    """Reads cost nothing, so that nothing is remembered of them."""

    def read(self, name: str, version: str, now_ms: int) -> Secret:
        """The version, or the newest when ``version`` is empty."""
        ...

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        """The newest and those before it that are still valid, newest first."""
        ...

    def facts(self, now_ms: int) -> list[SecretFacts]: ...

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:
        """The new version's name. The one before it is valid until ``until_ms``.

        ``after``: the version that must be the newest now, empty if there must be none, or None for any. Raises
        RotationError if another is.
        """
        ...

    def delete(self, name: str, now_ms: int) -> None:
        """Destroy all versions."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """Whom a module's :class:`Secrets` ask: the keeper of this process, or the supervisor."""

    async def ask(self, module: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        """What the keeper's operation gives, in JSON; see :meth:`Keeper.answer`."""
        ...


def check_name(name: str) -> str:
    """The name, if it can be one. Raises BadSecretError."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadSecretError(
            f"{name[:140]!r} is not the name of a secret",
            "Small letters, digits, '-', '_', '.' and '/', up to 127, a letter or digit first.",
        )
    return name
