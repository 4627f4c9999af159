"""What goes wrong where strangers say who they are.

AuthenticationError        SL4200  the gateway cannot do what [auth] says
  ProviderError            SL4201  the identity provider cannot be reached, or its answer cannot be used
  UsersFileError           SL4202  the file of the development identity provider's users cannot be used
  ApiKeyError              SL4203  an API key cannot be made, rotated or revoked
  SealError                SL4204  the keys that seal cookies cannot be read
  Refused                  SL4205  what a client sent does not prove who it is: told as 400, 401, 403 or 429
"""

from __future__ import annotations

from collections.abc import Iterable

from seamline.kernel.errors import SeamlineError
from seamline.kernel.wire.http1 import Header


class AuthenticationError(SeamlineError):
    """SL4200: the gateway cannot do what [auth] says."""

    code = "SL4200"


class ProviderError(AuthenticationError):
    """SL4201: the identity provider cannot be reached, or its answer cannot be used."""

    code = "SL4201"


class UsersFileError(AuthenticationError):
    """SL4202: the file of the development identity provider's users cannot be used."""

    code = "SL4202"


class ApiKeyError(AuthenticationError):
    """SL4203: an API key cannot be made, rotated or revoked."""

    code = "SL4203"


class SealError(AuthenticationError):
    """SL4204: the keys that seal cookies cannot be read."""

    code = "SL4204"


class Refused(AuthenticationError):
    """SL4205: what a client sent does not prove who it is.

    ``fact`` is for the audit. ``told`` is for the client, and says nothing that helps to guess.
    """

    code = "SL4205"

    def __init__(
        self, fact: str, told: str, *, status: int = 401, headers: Iterable[Header] = (), principal: str = ""
    ) -> None:
        super().__init__(fact)
        self.told = told
        self.status = status
        self.headers = list(headers)
        self.principal = principal
