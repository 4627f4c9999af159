"""A call in our own words: let in, looked through, answered by whoever can, looked through again, paid for.

The same for modules, that ask through :class:`LanguageModels`, and for the wires where bytes cannot be passed on.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final, Generic, TypeVar

from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings.ai_gateway import Ability
from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    Finish,
    Message,
    RerankAnswer,
    RerankRequest,
    Usage,
)
from seamline.models.errors import EngineError, EngineStalled, EngineUnreachable
from seamline.models.gateway.answers_cache import AnswersCache
from seamline.models.gateway.errors import UnknownModel
from seamline.models.gateway.guardrails import Guarding, Guardrails
from seamline.models.gateway.keys import Caller, Key, Keys
from seamline.models.gateway.race import Race, Watch
from seamline.models.gateway.targets import Model, Target, Wants
from seamline.models.gateway.till import Bill, Till
from seamline.module.context import current

_PICTURE_TOKENS: Final = 1_000
_RESUMES_MAX: Final = 3
A = TypeVar("A", ChatAnswer, EmbedAnswer, RerankAnswer)


class Pipeline:
    """What happens to every call."""

    def __init__(
        self,
        models: Mapping[str, Model],
        watch: Watch,
        till: Till,
        *,
        keys: Keys | None = None,
        guardrails: Guardrails | None = None,
        answers: AnswersCache | None = None,
    ) -> None:
        self.models = models
        self.watch = watch
        self.till = till
        self.keys = keys
        self.guardrails = guardrails
        self._answers = answers

    def looks_inside(self, model: Model) -> bool:
        """Whether a call's words matter here, so that they cannot be passed on unread."""
        settings = model.settings
        needed = self.guardrails is not None and self.guardrails.needs_body
        return needed or settings.resume or bool(settings.answer_cache_s)

    def may_be_clear(self, model: Model) -> bool:
        """Whether words matter for guardrails alone, which may turn out to have nothing to do."""
        return (
            self.guardrails is not None
            and self.guardrails.may_be_clear
            and not (model.settings.resume or model.settings.answer_cache_s)
        )

    async def look_through(self, who: Caller, model: Model, answer: ChatAnswer) -> ChatAnswer:
        """The answer to a question in which no guardrail found anything."""
        if self.guardrails is None or self.guardrails.clear_answer(answer):
            return answer
        guarding = self._guarding(who, model)

        async def ask(again: ChatRequest) -> ChatAnswer:
            return await self._complete(who, model, again)

        return answer if guarding is None else await guarding.after(answer, ask)

    async def complete(self, who: Caller, request: ChatRequest) -> ChatAnswer:
        """Raises AiGatewayError, EngineError."""
        model = self._model(who, request.model)
        request = _bounded(model, request)
        kept = self._kept_under(who, model, request)
        if kept and (answer := self._kept(who, model, kept)) is not None:
            return answer
        guarding = self._guarding(who, model)
        if guarding is None:
            answer = await self._complete(who, model, request)
        else:
            answer = await self._guarded(who, model, await guarding.before(request), guarding)
        if kept and self._answers is not None:
            self._answers.put(kept, answer, model.settings.answer_cache_s)
        return answer

    async def embed(self, who: Caller, request: EmbedRequest) -> EmbedAnswer:
        """Raises AiGatewayError, EngineError."""
        model = self._model(who, request.model)
        if (guarding := self._guarding(who, model)) is not None:
            request = dataclasses.replace(request, texts=await guarding.masked(request.texts))
        size = sum(len(text.encode()) for text in request.texts)
        bill = await self.till.open(who, model, "embeddings", size, answers=0)

        async def begin(target: Target) -> _Whole[EmbedAnswer]:
            return _Whole(await target.engine.embed(dataclasses.replace(request, model=target.model)))

        return await self._whole(bill, model, _plain(bill, "embeddings"), begin)

    async def rerank(self, who: Caller, request: RerankRequest) -> RerankAnswer:
        """Raises AiGatewayError, EngineError."""
        model = self._model(who, request.model)
        if (guarding := self._guarding(who, model)) is not None:
            query, *documents = await guarding.masked((request.query, *request.documents))
            request = dataclasses.replace(request, query=query, documents=tuple(documents))
        size = len(request.query.encode()) * len(request.documents)
        size += sum(len(text.encode()) for text in request.documents)
        bill = await self.till.open(who, model, "retrieval", size, answers=0)

        async def begin(target: Target) -> _Whole[RerankAnswer]:
            return _Whole(await target.engine.rerank(dataclasses.replace(request, model=target.model)))

        return await self._whole(bill, model, _plain(bill, "rerank"), begin)

    async def stream(self, who: Caller, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        """Nothing is given before an answer has begun. Raises AiGatewayError, EngineError."""
        model = self._model(who, request.model)
        request = _bounded(model, request)
        kept = self._kept_under(who, model, request)
        if kept and (answer := self._kept(who, model, kept)) is not None:
            yield _as_chunk(answer)
            return
        guarding = self._guarding(who, model)
        said = Said()
        if guarding is None:
            async with aclosing(self._stream(who, model, request)) as chunks:
                async for chunk in chunks:
                    said.add(chunk)
                    yield chunk
        else:
            async with aclosing(self._guarded_stream(who, model, request, guarding)) as chunks:
                async for chunk in chunks:
                    said.add(chunk)
                    yield chunk
        if kept and self._answers is not None and (answer := said.answer()) is not None:
            self._answers.put(kept, answer, model.settings.answer_cache_s)

    # With guardrails.

    async def _guarded(self, who: Caller, model: Model, request: ChatRequest, guarding: Guarding) -> ChatAnswer:
        async def ask(again: ChatRequest) -> ChatAnswer:
            return await self._complete(who, model, again)

        return await guarding.after(await ask(request), ask)

    async def _guarded_stream(
        self, who: Caller, model: Model, request: ChatRequest, guarding: Guarding
    ) -> AsyncGenerator[ChatChunk]:
        request = await guarding.before(request)
        if guarding.whole:
            yield _as_chunk(await self._guarded(who, model, request, guarding))
            return
        async with aclosing(self._stream(who, model, request)) as chunks:
            try:
                async for chunk in chunks:
                    for out in guarding.feed(chunk):
                        yield out
            except EngineError:
                for out in guarding.finish():
                    yield out
                raise
        for out in guarding.finish():
            yield out

    def _guarding(self, who: Caller, model: Model) -> Guarding | None:
        return None if self.guardrails is None else self.guardrails.begin(who, model.alias)

    # Asking.

    async def _complete(self, who: Caller, model: Model, request: ChatRequest) -> ChatAnswer:
        bill = await self._open(who, model, request, stream=False)
        request = _within(bill, request)

        async def begin(target: Target) -> _Whole[ChatAnswer]:
            return _Whole(await target.engine.complete(_called(request, target)))

        return await self._whole(bill, model, wants_of(request, bill), begin)

    async def _stream(self, who: Caller, model: Model, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        bill = await self._open(who, model, request, stream=True)
        request = _within(bill, request)
        failed = "canceled"
        said = Said()
        asked, last = request, None
        try:
            for _ in range(_RESUMES_MAX + 1):
                target, begun = await self._begun(bill, model, asked, beside=last)
                bill.answers(target, said)
                try:
                    async with aclosing(begun.chunks(model.settings.stall_timeout_s)) as chunks:
                        async for chunk in chunks:
                            said.add(chunk)
                            yield chunk
                            bill.goes_on()
                except EngineError:
                    if not (model.settings.resume and said.can_go_on):
                        raise
                    asked, last = said.continued(request), target
                    bill.abandoned.append(target)
                else:
                    failed = ""
                    return
            raise EngineUnreachable(f"no engine of {model.alias!r} came to an end", "Come again later.")
        except SeamlineError as error:
            failed = error.code
            raise
        finally:
            bill.close(failed)

    async def _open(self, who: Caller, model: Model, request: ChatRequest, *, stream: bool) -> Bill:
        operation = "chat" if request.messages else "text_completion"
        return await self.till.open(who, model, operation, size_of(request), request.tokens_max, stream=stream)

    async def _begun(
        self, bill: Bill, model: Model, request: ChatRequest, beside: Target | None
    ) -> tuple[Target, _Begun]:
        async def begin(target: Target) -> _Begun:
            begun = _Begun(target, target.engine.stream(_called(request, target)))
            await begun.begin()
            return begun

        race = Race(
            self.watch, model, wants_of(request, bill), begin, whole=False, asking=bill.asked,
            affordable=bill.affordable, abandoned=bill.abandoned, beside=beside,
        )  # fmt: skip
        return await race.run()

    async def _whole(
        self, bill: Bill, model: Model, wants: Wants, begin: Callable[[Target], Awaitable[_Whole[A]]]
    ) -> A:
        failed = "canceled"
        try:
            race = Race(
                self.watch, model, wants, begin, whole=True, asking=bill.asked, affordable=bill.affordable,
                abandoned=bill.abandoned,
            )  # fmt: skip
            target, whole = await race.run()
            bill.answers(target, whole)
            failed = ""
            return whole.answer
        except SeamlineError as error:
            failed = error.code
            raise
        finally:
            bill.close(failed)

    def _model(self, who: Caller, alias: str) -> Model:
        model = self.models.get(alias)
        if model is None:
            raise UnknownModel(f"there is no model {alias!r}", f"There are {', '.join(self.models) or 'none'}.")
        who.key.allow(alias)
        return model

    # Answers that are given again.

    def _kept_under(self, who: Caller, model: Model, request: ChatRequest) -> bytes | None:
        return AnswersCache.key(who, request) if self._answers is not None and model.settings.answer_cache_s else None

    def _kept(self, who: Caller, model: Model, key: bytes) -> ChatAnswer | None:
        answer = self._answers.get(key) if self._answers is not None else None
        if answer is not None:
            self.till.given_again(who, model)
        return answer


class LanguageModels:
    """Language models by the names of ``[ai_gateway.models]``, for a module that asks for them in its constructor.

    A module's calls are its own: budgets and accounts know it by its name. Errors are the AI gateway's and engines'.
    """

    def __init__(self, pipeline: Pipeline, module: str = "") -> None:
        self._pipeline = pipeline
        self._module = module
        self._keys: dict[str, Key] = {}

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        return await self._pipeline.complete(self._who(request.user), request)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        async with aclosing(self._pipeline.stream(self._who(request.user), request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        return await self._pipeline.embed(self._who(request.user), request)

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        return await self._pipeline.rerank(self._who(""), request)

    def _who(self, user: str) -> Caller:
        call = current()
        module = self._module or (call.module if call is not None else "")
        key = self._keys.get(module)
        if key is None:
            key = self._keys[module] = Key(id=f"module:{module}", name=module, module=module)
        return Caller(key, user)


class _Whole(Generic[A]):
    """A whole answer, as a race and a bill see it."""

    __slots__ = ("answer", "pieces")

    def __init__(self, answer: A) -> None:
        self.answer = answer
        self.pieces = 0

    @property
    def usage(self) -> Usage:
        return self.answer.usage

    @property
    def finish(self) -> str:
        return self.answer.finish if isinstance(self.answer, ChatAnswer) else "stop"

    async def aclose(self) -> None:
        """Nothing is open."""


class _Begun:
    """A stream of which something has come."""

    def __init__(self, target: Target, source: AsyncGenerator[ChatChunk]) -> None:
        self._target = target
        self._source = source
        self._held: list[ChatChunk] = []

    async def begin(self) -> None:
        try:
            async for chunk in self._source:
                self._held.append(chunk)
                if chunk.text or chunk.tool_calls or chunk.refusal or chunk.finish:
                    return
        except BaseException:
            await self.aclose()
            raise
        raise EngineUnreachable(f"{self._target.name} answered nothing", "Look at the engine.")

    async def chunks(self, stall_s: float) -> AsyncGenerator[ChatChunk]:
        """All of it, from the beginning. Raises EngineStalled where nothing comes for so long."""
        async with aclosing(self._source):
            for chunk in self._held:
                yield chunk
            finished = any(chunk.finish for chunk in self._held)
            while True:
                try:
                    async with asyncio.timeout(stall_s):
                        chunk = await anext(self._source, None)
                except TimeoutError:
                    raise EngineStalled(f"nothing came from {self._target.name} for {stall_s:g} s", "") from None
                if chunk is None:
                    break
                finished = finished or bool(chunk.finish)
                yield chunk
            if not finished:
                raise EngineUnreachable(f"{self._target.name} ended in the middle of an answer", "Ask again.")

    async def aclose(self) -> None:
        await self._source.aclose()


class Said:
    """What a stream has said so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.finish: Finish = ""
        self.pieces = 0
        self._text: list[str] = []
        self._plain = True
        self._id = self._model = ""

    @property
    def can_go_on(self) -> bool:
        """Half a tool call cannot be shown to another engine, and what is over needs no more."""
        return self._plain and bool(self._text) and not self.finish

    def add(self, chunk: ChatChunk) -> None:
        if chunk.text or chunk.tool_calls or chunk.refusal:
            self.pieces += 1
            self._text.append(chunk.text)
        if chunk.tool_calls or chunk.refusal:
            self._plain = False
        self.finish = chunk.finish or self.finish
        self.usage = chunk.usage or self.usage
        self._id, self._model = chunk.id or self._id, chunk.model or self._model

    def answer(self) -> ChatAnswer | None:
        """All of it, if it is a whole text."""
        if not (self._plain and self.finish == "stop"):
            return None
        return ChatAnswer(
            message=Message(role="assistant", content="".join(self._text)), usage=self.usage or Usage(), id=self._id,
            model=self._model,
        )  # fmt: skip

    def continued(self, request: ChatRequest) -> ChatRequest:
        """What to ask so that the answer goes on where it broke off."""
        text = "".join(self._text)
        if not request.messages:
            return dataclasses.replace(request, prompt=request.prompt + text)
        return dataclasses.replace(request, messages=(*request.messages, Message(role="assistant", content=text)))


def _as_chunk(answer: ChatAnswer) -> ChatChunk:
    said = answer.message
    return ChatChunk(
        text=said.content, tool_calls=said.tool_calls, refusal=said.refusal, finish=answer.finish, usage=answer.usage,
        model=answer.model, id=answer.id,
    )  # fmt: skip


def size_of(request: ChatRequest) -> int:
    """Bytes of what is asked, pictures by what they usually cost."""
    size = len(request.prompt.encode())
    for message in request.messages:
        size += len(message.content.encode()) + 16
        for part in message.parts:
            size += len(part.text.encode()) + (_PICTURE_TOKENS * 3 if part.image_url else 0)
        for call in message.tool_calls:
            size += len(call.arguments.encode()) + len(call.name)
    for tool in request.tools:
        size += len(tool.parameters.encode()) + len(tool.description.encode()) + len(tool.name)
    return size + (len(request.answer_schema.schema.encode()) if request.answer_schema is not None else 0)


def wants_of(request: ChatRequest, bill: Bill) -> Wants:
    abilities: set[Ability] = {"chat" if request.messages else "completions"}
    if request.tools:
        abilities.add("tools")
    if request.answer_schema is not None:
        abilities.add("json")
    if any(part.image_url for message in request.messages for part in message.parts):
        abilities.add("vision")
    return Wants(frozenset(abilities), bill.tokens + request.tokens_max, bill.caller.key.id)


def _plain(bill: Bill, ability: Ability) -> Wants:
    return Wants(frozenset({ability}), bill.tokens, bill.caller.key.id)


def _called(request: ChatRequest, target: Target) -> ChatRequest:
    """With the model's name as the engine knows it."""
    return request if request.model == target.model else dataclasses.replace(request, model=target.model)


def _within(bill: Bill, request: ChatRequest) -> ChatRequest:
    """No longer an answer than there is room for."""
    return dataclasses.replace(request, tokens_max=bill.answer_max) if bill.answer_max else request


def _bounded(model: Model, request: ChatRequest) -> ChatRequest:
    most = model.settings.output_tokens_max
    if most and not 0 < request.tokens_max <= most:
        return dataclasses.replace(request, tokens_max=most)
    return request
