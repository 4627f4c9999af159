"""A value that does not show itself."""

from __future__ import annotations

import contextlib
import hmac
from typing import Any, Final, NoReturn, Self

from seamline.secrets.errors import BadSecretError, SecretShownError

BYTES_MAX: Final = 64 * 1024
"""Of one value: a key or a certificate chain fits, a data set does not."""


class Secret:
    """What a secret is at one version. Only :meth:`reveal` and :meth:`reveal_bytes` give the value.

    ``str``, ``repr``, ``format`` and log lines say its name and version. JSON, pickle and every codec refuse it. Two
    are compared in constant time.

    Attributes:
        name: as in ``secrets.get(name)``.
        version: of the value, as the backend counts; equal versions are equal values.
        made_ms: when this version was made, in milliseconds since the epoch; 0 where the backend does not say.
        until_ms: until when it is valid, where a newer one has taken its place; 0 while it is the newest.
    """

    __slots__ = ("__value", "made_ms", "name", "until_ms", "version")
    __hash__ = None  # pyright: ignore[reportAssignmentType]  # a hash would be a way to try values

    name: str
    version: str
    made_ms: int
    until_ms: int
    __value: bytes

    def __init__(self, name: str, version: str, value: bytes, *, made_ms: int = 0, until_ms: int = 0) -> None:
        put = object.__setattr__
        put(self, "name", name)
        put(self, "version", version)
        put(self, "made_ms", made_ms)
        put(self, "until_ms", until_ms)
        put(self, "_Secret__value", value)

    def reveal(self) -> str:
        """The value as text. Raises BadSecretError where it is not UTF-8."""
        with contextlib.suppress(UnicodeDecodeError):
            return self.__value.decode()
        # Outside of the handler: that error holds the value, and would hang on to this one.
        raise BadSecretError(f"the value of the secret {self.name!r} is not UTF-8 text", "Use reveal_bytes().")

    def reveal_bytes(self) -> bytes:
        """The value as it is kept."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, version {self.version})"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value, other.__value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise SecretShownError(f"{self!r} was to be pickled", "Pass its name on, and ask for it where it is needed.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> NoReturn:
        raise SecretShownError(
            "a model or a contract has a field of type Secret",
            "Values that cross seams are written down: pass the secret's name, and ask for it where it is needed.",
        )


def check_value(name: str, value: bytes) -> bytes:
    """The value, if it can be kept. Raises BadSecretError, which does not hold it."""
    if not value:
        raise BadSecretError(f"the value for the secret {name!r} is empty", "Give one.")
    if len(value) > BYTES_MAX:
        raise BadSecretError(
            f"the value for the secret {name!r} has {len(value)} bytes, more than {BYTES_MAX}",
            "Keep the data elsewhere, encrypted, and its key here.",
        )
    return value
