"""Models that chat, in processes of their own: the same classes with methods that block, as such processes want them.

::

    @module.model(ShopTalk, version="tiny-1", runs_in="process", concurrency=8)
    class Tiny(Apart, LlamaChat):
        folder = HERE / "weights" / "tiny-1"

``concurrency`` is how many answers a process makes at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar, cast

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest
from seamline.models.runtimes.chat_model import ChatModel
from seamline.module.models import Artefacts

T = TypeVar("T")


class Apart(ChatModel):
    """To stand before the class that says how the model opens. An event loop in a thread does what that would do."""

    _loop: asyncio.AbstractEventLoop | None = None

    def load(self, artefacts: Artefacts | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._loop = loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name=f"loop of {type(self).__name__}", daemon=True).start()
        self._wait(super().load(artefacts))

    def unload(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._wait(super().unload())
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def complete(self, request: ChatRequest) -> ChatAnswer:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._wait(super().complete(request))

    def stream(self, request: ChatRequest) -> Iterator[ChatChunk]:  # pyright: ignore[reportIncompatibleMethodOverride]
        chunks = super().stream(request)
        try:
            while True:
                chunk = self._wait(_next(chunks))
                if chunk is None:
                    return
                yield chunk
        finally:
            self._wait(chunks.aclose())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "load comes before calls"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(chunks: Any) -> ChatChunk | None:
    return cast("ChatChunk | None", await anext(chunks, None))
