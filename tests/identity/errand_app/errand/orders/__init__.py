"""Passes errands on: by a call, a stream, an event, a saga."""

from __future__ import annotations

from collections.abc import AsyncIterator

from errand.payments import Asked
from seamline import Contract, Event, readonly


class Placed(Event):
    note: str


class Orders(Contract):
    @readonly
    async def call(self) -> Asked: ...

    @readonly
    async def myself(self) -> Asked: ...

    @readonly
    async def alone(self) -> Asked: ...  # What a task of its own finds, that outlives the call

    @readonly
    async def wait(self) -> None: ...  # Waits for ever

    @readonly
    def watch(self) -> AsyncIterator[Asked]: ...

    async def publish(self, note: str) -> None: ...

    async def begin(self, note: str) -> str: ...  # Begins a saga that pays twice, with a wait between

    async def go_on(self, saga: str) -> None: ...
