"""A module's model that is elsewhere: its contract is answered by an engine.

::

    @module.model(ShopTalk, version="remote", runs_in="loop")
    class Remote(RemoteChat):
        engine = "openai:https://host/v1"
        engine_model = "qwen3-8b"
        engine_key = "ENGINE_KEY"          # the environment variable that holds it

What an engine refuses, callers hear in the words of calls: Overloaded with when to come again, Unavailable,
DeadlineExceeded, InvalidArgument.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, Final

from seamline.kernel.settings import ContractModelSettings, read_secret, read_variable
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
from seamline.models.errors import ModelError
from seamline.models.remote.client import Patience
from seamline.models.remote.engines import engine_of
from seamline.module.models import ModelType


class Elsewhere:
    """What the classes for each contract share. Subclasses say where."""

    engine: ClassVar[str] = ""
    """As :func:`~seamline.models.remote.engines.engine_of` takes it."""
    engine_model: ClassVar[str] = ""
    """What the model is called there."""
    engine_key: ClassVar[str] = ""
    """The environment variable that holds the key, if the engine wants one."""
    patience: ClassVar[Patience] = Patience()

    def __init__(self) -> None:
        self._asked: LanguageEngine | None = None

    def load(self) -> None:
        """Nothing is asked yet: an engine that is not up now may be when it is needed."""
        key = read_secret(self.engine_key) if self.engine_key else ""
        self._asked = engine_of(self.engine, key=key, model=self.engine_model, patience=self.patience)

    async def unload(self) -> None:
        if self._asked is not None:
            await self._asked.close()

    @property
    def asked(self) -> LanguageEngine:
        assert self._asked is not None, "load comes before calls"
        return self._asked


class RemoteChat(Elsewhere):
    """A :class:`~seamline.models.chat.Chat` that is elsewhere."""

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        return await self.asked.complete(request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        async with aclosing(self.asked.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class RemoteEmbeddings(Elsewhere):
    """:class:`~seamline.models.chat.Embeddings` that are elsewhere."""

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        return await self.asked.embed(request)


class RemoteRerank(Elsewhere):
    """A :class:`~seamline.models.chat.Rerank` that is elsewhere."""

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        return await self.asked.rerank(request)


_FILE: Final = "gguf:"
_FOR: dict[type[Any], type[Elsewhere]] = {Chat: RemoteChat, Embeddings: RemoteEmbeddings, Rerank: RemoteRerank}


def instead(
    contract: type[Any], told: ContractModelSettings, folder: Path, declared: Sequence[ModelType] = ()
) -> ModelType | None:
    """What answers ``contract`` instead of the module's class, where ``[models.<Contract>]`` says so.

    Args:
        folder: of the application, in which files are looked for.
        declared: what the module has: as the first of it is watched, so is what answers instead.

    Raises:
        ModelError: what it says cannot be.
    """
    found = _instead(contract, told, folder)
    watch = next((each.watch for each in declared if each.watch is not None), None)
    if found is None or watch is None:
        return found
    return dataclasses.replace(found, watch=dataclasses.replace(watch, reference=""))


def _instead(contract: type[Any], told: ContractModelSettings, folder: Path) -> ModelType | None:
    address = read_variable(told.engine_variable) if told.engine_variable else ""
    if address:
        key = told.engine_key if told.engine_key and read_variable(told.engine_key) else ""
        return model_elsewhere(contract, f"openai:{address}", model=told.engine_model, key=key)
    if told.engine.startswith(_FILE):
        return _model_of_file(contract, folder / told.engine.removeprefix(_FILE))
    if told.engine:
        return model_elsewhere(contract, told.engine, model=told.engine_model, key=told.engine_key)
    return None


def model_elsewhere(contract: type[Any], engine: str, *, model: str = "", key: str = "") -> ModelType:
    """An engine that answers ``contract``. Raises ModelError.

    Args:
        model: what it is called there.
        key: the environment variable that holds the key.
    """
    bases = tuple(cls for asked, cls in _FOR.items() if issubclass(contract, asked))
    if not bases:
        raise _unfit(contract, engine, "Chat, Embeddings or Rerank")
    places = {"engine": engine, "engine_model": model, "engine_key": key}
    cls = type(f"{contract.__name__}Elsewhere", bases, places)
    return ModelType(cls=cls, contract=contract, version="remote", runs_in="loop")


def _model_of_file(contract: type[Any], file: Path) -> ModelType:
    if not issubclass(contract, Chat):
        raise _unfit(contract, f"{_FILE}{file}", "Chat")
    from seamline.models.runtimes.chat_model import LlamaChat  # no engine elsewhere needs it

    cls = type(f"{contract.__name__}OfFile", (LlamaChat,), {"file": file})
    return ModelType(cls=cls, contract=contract, version="file", runs_in="loop", loads="background")


def _unfit(contract: type[Any], engine: str, bases: str) -> ModelError:
    return ModelError(
        f"{contract.__name__} is no contract of a language model, and {engine!r} answers no other",
        f"Derive it from {bases}, or leave it to the module's own class.",
        place=f"seamline.toml [models.{contract.__name__}] engine",
    )
