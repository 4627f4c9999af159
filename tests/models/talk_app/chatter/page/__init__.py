"""Who asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from seamline import Contract


class Page(Contract):
    async def ask(self, question: str) -> str: ...

    def listen(self, question: str) -> AsyncIterator[str]: ...
