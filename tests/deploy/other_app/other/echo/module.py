"""The inside in Python, for topologies without a sidecar."""

from __future__ import annotations

from collections.abc import AsyncIterator

from other.echo import Echo
from seamline import Module

module = Module("echo", provides=Echo)


@module.service
class EchoService(Echo):
    async def say(self, text: str) -> str:
        return text

    async def heard(self) -> dict[str, str]:
        return {}

    async def slow(self, seconds: float) -> str:
        return f"after {seconds}"

    async def ask(self, name: str) -> str:
        return name

    async def forge(self) -> str:
        return ""

    async def die(self) -> str:
        return ""

    async def count(self, to: int) -> AsyncIterator[int]:
        for at in range(1, to + 1):
            yield at
