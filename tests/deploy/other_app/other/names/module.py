"""The inside of names."""

from __future__ import annotations

from other.names import Names
from seamline import Module, Principal

module = Module("names", provides=Names)


@module.service
class NamesService(Names):
    def __init__(self, who: Principal) -> None:
        self._who = who

    async def whole(self, name: str) -> str:
        user = self._who.user
        return f"{name} for {user.id if user else 'nobody'} by {' > '.join(self._who.chain)}"
