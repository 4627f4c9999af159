"""What provides a contract that a model answers: an object like any service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from seamline.kernel.wire.frames import Ahead
from seamline.mesh.outcome import Refusal
from seamline.mesh.service import together
from seamline.models.chat import Chat
from seamline.models.errors import EngineError, ModelLoadError
from seamline.models.members import call_error
from seamline.models.serving.engine import Engine
from seamline.models.serving.errors import WorkerLost
from seamline.module.contract import SERVER_STREAM, compile_contract
from seamline.module.errors import DeadlineExceeded, Overloaded, Unavailable


class Answering(Protocol):
    """Answers the calls of one contract."""

    def __iter__(self) -> Iterator[Engine]:
        """The versions."""
        ...

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any: ...

    def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]: ...


def served(contract: type[Any], by: Answering) -> object:
    """An instance of ``contract``, of which each method is unary or a server's stream."""
    methods: dict[str, Any] = {}
    for name, spec in compile_contract(contract).methods.items():
        make = _streaming if spec.kind == SERVER_STREAM else _answering
        methods[name] = make(name, by)
    if issubclass(contract, Chat):
        methods["seamline_ahead"] = _counting(by)
    return type(f"{contract.__name__}Model", (contract,), methods)()


def _counting(by: Answering) -> Callable[..., Ahead | None]:
    """See :class:`~seamline.mesh.service.CountsTokens`."""

    def ahead(_self: object) -> Ahead | None:
        return together(engine.tokens.ahead() for engine in by if engine.tokens is not None)

    return ahead


def _answering(name: str, by: Answering) -> Callable[..., Any]:
    async def answer(_self: object, *arguments: Any) -> Any:
        try:
            return await by.call(name, arguments)
        except _OWN_WORDS as error:
            if (told := _as_told(error)) is None:
                raise
            raise Refusal(told) from error

    return answer


def _streaming(name: str, by: Answering) -> Callable[..., Any]:
    async def stream(_self: object, *arguments: Any) -> AsyncGenerator[Any]:
        try:
            async with aclosing(by.stream(name, arguments)) as items:
                async for item in items:
                    yield item
        except _OWN_WORDS as error:
            if (told := _as_told(error)) is None:
                raise
            raise Refusal(told) from error

    return stream


_OWN_WORDS = (Overloaded, DeadlineExceeded, ModelLoadError, WorkerLost, EngineError)
"""The platform's own words, which are no failure of the model's code."""


def _as_told(error: Exception) -> Exception | None:
    """What the caller hears: of a model that is gone the same as of a module that is, of an engine elsewhere what it
    said; None where that is nothing to callers."""
    if isinstance(error, EngineError):
        return call_error(error)
    if isinstance(error, ModelLoadError | WorkerLost):
        told = Unavailable(error.fact, error.remedy)
        told.started = isinstance(error, WorkerLost)
        return told
    return error
