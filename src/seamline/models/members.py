"""The application's own models, as the AI gateway asks them: through their contracts, like any caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from seamline.models.chat import (
    Chat,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    Embeddings,
    EmbedRequest,
    Rerank,
    RerankAnswer,
    RerankRequest,
)
from seamline.models.engine import LanguageEngine
from seamline.models.errors import EngineCannotError, EngineError, EngineRefused, EngineStalled, EngineUnreachable
from seamline.module.contract import Contract
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from seamline.module.values import Fault

_ASKED = (Chat, Embeddings, Rerank)
_BUSY = (429, 503, 529)
_UNFIT = (400, 413, 422)


def members(contracts: Iterable[type[Contract]], stub: Callable[[type[Contract]], Any]) -> Mapping[str, LanguageEngine]:
    """An engine for each of ``contracts`` that is of a language model, by the contract's name."""
    return {each.__name__: Member(each, stub(each)) for each in contracts if issubclass(each, _ASKED)}


class Member:
    """A model of the application. See :class:`~seamline.models.engine.LanguageEngine`."""

    provider = "seamline"

    def __init__(self, contract: type[Contract], stub: Any) -> None:
        self._contract = contract
        self._stub = stub

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        with self._asking(Chat):
            return await self._stub.complete(request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        with self._asking(Chat):
            async with aclosing(self._stub.stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        with self._asking(Embeddings):
            return await self._stub.embed(request)

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        with self._asking(Rerank):
            return await self._stub.rerank(request)

    async def close(self) -> None:
        """Nothing is held: the mesh has the connections."""

    @contextmanager
    def _asking(self, ability: type[Contract]) -> Generator[None]:
        name = self._contract.__name__
        if not issubclass(self._contract, ability):
            raise EngineCannotError(f"{name} is no model of {ability.__name__}", "Ask one that is.")
        try:
            yield
        except (CallError, Fault) as error:
            raise _told(name, error) from error


def _told(name: str, error: CallError | Fault) -> EngineError:
    """What became of a call, in the words of engines."""
    if isinstance(error, Fault):
        return _refused(f"{name} refused: {error.message}", 400, type(error).__name__)
    said = f"{name} did not answer: {error.fact}"
    if isinstance(error, Overloaded):
        refused = _refused(said, 429, "overloaded")
        refused.retry_after_s = error.retry_after_s
        return refused
    if isinstance(error, (PermissionDenied, Unauthenticated)):
        return _refused(said, 403, error.connect)
    if isinstance(error, InvalidArgument):
        return _refused(said, 400, error.connect)
    if isinstance(error, Unavailable):
        return EngineUnreachable(said, error.remedy)
    if isinstance(error, DeadlineExceeded):
        return EngineStalled(said, error.remedy)
    return _refused(said, 500, error.connect)


def call_error(error: EngineError) -> CallError | None:
    """What became of an engine's call, in the words of calls: what a caller of a contract that it answers hears.

    None where only who runs the model can do something about it.
    """
    told: CallError
    if isinstance(error, EngineRefused):
        if error.status in _BUSY:
            told = Overloaded(error.fact, error.remedy)
            told.retry_after_s = error.retry_after_s
            return told
        if error.status in _UNFIT:
            return InvalidArgument(error.fact, error.remedy)
        return Unavailable(error.fact, error.remedy) if error.status >= 500 else None
    if isinstance(error, EngineUnreachable):
        return Unavailable(error.fact, error.remedy)
    if isinstance(error, EngineStalled):
        return DeadlineExceeded(error.fact, error.remedy)
    return Unimplemented(error.fact, error.remedy) if isinstance(error, EngineCannotError) else None


def _refused(said: str, status: int, kind: str) -> EngineRefused:
    refused = EngineRefused(said)
    refused.status, refused.kind = status, kind
    return refused
