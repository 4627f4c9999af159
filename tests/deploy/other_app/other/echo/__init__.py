"""Says again what it hears; its inside is node's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from seamline import Attribute, Contract, readonly


class Echo(Contract):
    @readonly
    async def say(self, text: Annotated[str, Attribute]) -> str: ...

    @readonly
    async def heard(self) -> dict[str, str]: ...

    async def slow(self, seconds: float) -> str: ...

    async def ask(self, name: str) -> str: ...

    async def forge(self) -> str: ...

    async def die(self) -> str: ...

    def count(self, to: int) -> AsyncIterator[int]: ...
