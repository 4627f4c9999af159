"""A version of a secret, held for a stated time."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from seamline.secrets.errors import LeaseEndedError
from seamline.secrets.secret import Secret

if TYPE_CHECKING:
    from seamline.secrets.secrets import Secrets


class Lease:
    """``async with secrets.lease("ledger-key") as lease: ... lease.secret ...``

    The version that it gives stays valid while the lease runs, also if a newer one takes its place meanwhile. Leaving
    the block gives it back.
    """

    def __init__(self, secrets: Secrets, name: str, seconds: float) -> None:
        self._secrets = secrets
        self._name = name
        self._seconds = seconds
        self._secret: Secret | None = None
        self.id = ""
        self.ends_ms = 0
        """When it ends, in milliseconds since the epoch."""

    @property
    def secret(self) -> Secret:
        """Raises LeaseEndedError outside of the block and after the end."""
        if self._secret is None or self._secrets.now_ms() >= self.ends_ms:
            raise LeaseEndedError(f"the lease of the secret {self._name!r} has ended", "Renew it in time, or take one.")
        return self._secret

    async def renew(self, seconds: float = 0) -> None:
        """Run on for as long again. Raises LeaseEndedError where a newer version leaves it no more time."""
        self.ends_ms = await self._secrets.renew(self.id, seconds or self._seconds)

    async def __aenter__(self) -> Self:
        self.id, self.ends_ms, self._secret = await self._secrets.take(self._name, self._seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._secret = None
        await self._secrets.give_back(self.id)
