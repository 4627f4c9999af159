"""On whose behalf something is done that waited: in an event, or in a saga."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Final

from seamline.mesh.errors import DelegationError, UnknownKeyError
from seamline.mesh.identity.delegation import Delegation
from seamline.mesh.identity.revocation import Revocations
from seamline.module.errors import Unauthenticated, Unavailable
from seamline.module.principal import Subject

KEY_S: Final = 2.0
"""How long a key of long ago is waited for, which the supervisor is asked for."""


class Waiting:
    """The :class:`~seamline.module.principal.Proofs` of one process."""

    def __init__(self, delegation: Delegation, revocations: Revocations) -> None:
        self._delegation = delegation
        self._revocations = revocations
        self.refuses = revocations.refuses
        self.check = revocations.check

    def defer(self, subject: Subject, module: str, via: str) -> tuple[str, Subject]:
        self._revocations.check(subject)
        return self._delegation.defer(subject, module, via)

    async def resume(self, text: str, module: str, via: str) -> Subject:
        try:
            async with asyncio.timeout(KEY_S):
                while True:
                    told = self._delegation.keys.told
                    try:
                        return self._delegation.resume(text, module, via)
                    except UnknownKeyError:
                        await told.wait()
        except TimeoutError:
            error = Unavailable("nobody has told yet whose key signed the proof of a user", "Is the supervisor there?")
            error.started = False
            raise error from None
        except DelegationError as error:
            raise Unauthenticated(error.fact, error.remedy) from None

    def bound(self, subject: Subject | None) -> AbstractContextManager[None]:
        return self._revocations.bound(subject)
