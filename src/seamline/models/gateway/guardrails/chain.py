"""The steps of a call, in their order; on the way back in the opposite one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from seamline.kernel.settings.ai_gateway import AiGatewaySettings
from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, Message
from seamline.models.gateway.guardrails.injection import Injection
from seamline.models.gateway.guardrails.lists import Lists, Size
from seamline.models.gateway.guardrails.pii import Pii
from seamline.models.gateway.guardrails.schema import Schema
from seamline.models.gateway.guardrails.step import Ask, Clearing, Guard, Guardrail, Words
from seamline.models.gateway.guardrails.texts import texts
from seamline.models.gateway.keys import Caller

_INLINE_MAX: Final = 32_768
"""Letters: a few milliseconds."""


class Guardrails:
    """All steps.

    Args:
        own: an application's steps, after those that ``[ai_gateway] guardrails`` names.
    """

    def __init__(self, settings: AiGatewaySettings, own: Sequence[Guardrail] = ()) -> None:
        self._size = Size(settings.prompt_tokens_max)
        built_in = {
            "size": lambda: self._size,
            "lists": lambda: Lists(settings.tools, settings.domains),
            "pii": lambda: Pii(settings.pii, settings.pii_action),
            "injection": lambda: Injection(settings.injection_threshold),
            "schema": lambda: Schema(settings.schema_repairs),
        }
        self.steps: tuple[Guardrail, ...] = (*(built_in[name]() for name in settings.guardrails), *own)
        self._sized = "size" in settings.guardrails
        self.needs_body = any(step is not self._size for step in self.steps)
        """Otherwise a call may be passed on unread, after :meth:`check_size`."""
        clearing = [step for step in self.steps if isinstance(step, Clearing)]
        self._clearing = clearing if len(clearing) == len(self.steps) else None

    def check_size(self, size: int) -> None:
        """Of a body of so many bytes that is not looked into. Raises TooLarge."""
        if self._sized:
            self._size.check(size)

    @property
    def may_be_clear(self) -> bool:
        """Whether a call may turn out to need none of the steps."""
        return self._clearing is not None

    def clear(self, words: Words) -> bool:
        """Whether no step has anything to do with a question; that is not so where it is not sure."""
        if self._clearing is None or words.size > _INLINE_MAX:
            return False
        return all(step.clear(words) for step in self._clearing)

    def clear_answer(self, answer: ChatAnswer) -> bool:
        """The same for the whole answer to a clear question."""
        return self._clearing is not None and all(step.clear_answer(answer) for step in self._clearing)

    def begin(self, who: Caller, model: str) -> Guarding | None:
        """The steps that a call goes through; None is none."""
        if not self.steps:
            return None
        guards = [guard for step in self.steps if (guard := step.begin(who, model)) is not None]
        return Guarding(guards) if guards else None


class Guarding:
    """One call."""

    __slots__ = ("_back", "_guards")

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = guards
        self._back = guards[::-1]

    @property
    def whole(self) -> bool:
        """The answer has to be there as a whole before any of it may go out."""
        return any(guard.whole for guard in self._guards)

    async def before(self, request: ChatRequest) -> ChatRequest:
        """What is asked instead. Raises Blocked, TooLarge, BadRequest.

        A long text is looked through beside the event loop, which others wait for.
        """
        if sum(len(text) for text in texts(request)) > _INLINE_MAX:
            return await asyncio.to_thread(self._before, request)
        return self._before(request)

    def _before(self, request: ChatRequest) -> ChatRequest:
        for guard in self._guards:
            request = guard.before(request)
        return request

    async def masked(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Of a call without messages: what is embedded, or ordered."""
        asked = await self.before(ChatRequest(messages=tuple(Message(role="user", content=text) for text in texts)))
        return tuple(message.content for message in asked.messages)

    def feed(self, chunk: ChatChunk) -> Iterable[ChatChunk]:
        """A piece of a streamed answer; what may go out now."""
        chunks: Iterable[ChatChunk] = (chunk,)
        for guard in self._back:
            chunks = [out for each in chunks for out in guard.feed(each)]
        return chunks

    def finish(self) -> Iterable[ChatChunk]:
        """The stream is over, whether it said so or not; what was held back."""
        chunks: list[ChatChunk] = []
        for guard in self._back:
            chunks = [*(out for each in chunks for out in guard.feed(each)), *guard.finish()]
        return chunks

    async def after(self, answer: ChatAnswer, ask: Ask) -> ChatAnswer:
        """The whole answer. Raises AnswerUnfit, Blocked, and what ``ask`` raises."""
        for guard in self._back:
            answer = await guard.after(answer, ask)
        return answer
