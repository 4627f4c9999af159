"""A language model that says what a script says: for tests of what depends on content, on time, or on failure.

It is no model: nothing is learned, nothing is understood. The same question and seed have the same answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
import random
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from seamline.kernel.clock import Clock, SystemClock
from seamline.models.chat import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    EmbedAnswer,
    EmbedRequest,
    Finish,
    Message,
    Ranked,
    RerankAnswer,
    RerankRequest,
    ToolCall,
    Usage,
)
from seamline.models.runtimes.text import StopStrings

_WIDTH: Final = 64
_WORD: Final = re.compile(r"\s*\S+(?:\s+$)?|\s+$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What is answered where ``pattern`` is found in the last message (or in the prompt).

    A token is a word with the space before it. Numbers of tokens that are None are never reached.
    """

    pattern: str = ""
    """A regular expression, searched without regard to case."""
    answer: str | Sequence[str] = ""
    """With ``\\1``, ``\\g<name>`` for what the pattern's groups found; of several, the seed chooses one."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Asked for after the answer's text; arguments may refer to groups, too."""
    refusal: str = ""
    wait_s: float = 0.0
    """Before the first token."""
    stalls_after: int | None = None
    """After so many tokens nothing more comes."""
    fails: Exception | None = None
    fails_after: int = 0
    """The tokens that come before it fails."""
    usage: Usage | None = None
    """Instead of what is counted."""


class Scripted:
    """Answers by the first rule that fits; a :class:`~seamline.models.engine.LanguageEngine`.

    Args:
        script: in order. A rule without a pattern fits always.
        tokens_per_s: how fast it speaks; 0 is at once.
        model: its name, told with each answer.
        clock: by which it waits.
    """

    provider = "seamline"

    def __init__(
        self,
        script: Sequence[Rule] = (),
        tokens_per_s: float = 0.0,
        *,
        model: str = "scripted",
        clock: Clock | None = None,
    ) -> None:
        self._script = [(re.compile(rule.pattern, re.IGNORECASE | re.DOTALL), rule) for rule in script]
        self._pause_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._clock = clock or SystemClock()
        self.model = model
        self.asked: list[ChatRequest] = []
        """Every request, in order."""
        self.under_way = 0
        self.left = 0
        """Streams and calls that were given up by the caller."""
        self.tokens_said = 0
        """Also to those who left."""
        self.closed = False

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        text, refusal, calls = "", "", list[ToolCall]()
        last = ChatChunk()
        async for chunk in self.stream(request):
            text += chunk.text
            refusal += chunk.refusal
            calls += chunk.tool_calls
            last = chunk
        message = Message(role="assistant", content=text, refusal=refusal, tool_calls=tuple(calls))
        return ChatAnswer(
            message=message,
            finish=last.finish or "stop",
            usage=last.usage or Usage(),
            model=self.model,
            id=last.id,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        self.asked.append(request)
        answer_id = f"scripted-{len(self.asked)}"
        self.under_way += 1
        ended = False
        try:
            async for chunk in self._said(request):
                # Before it is handed over: who is sent the last word and leaves has not left early.
                ended = bool(chunk.finish)
                yield dataclasses.replace(chunk, model=self.model, id=answer_id)
        except Exception:
            ended = True
            raise
        finally:
            self.under_way -= 1
            self.left += not ended

    async def embed(self, request: EmbedRequest) -> EmbedAnswer:
        """Places texts by their words: texts that share words are near."""
        width = request.dimensions or _WIDTH
        return EmbedAnswer(
            vectors=tuple(_place(text, width) for text in request.texts),
            usage=Usage(input_tokens=sum(map(count_tokens, request.texts))),
            model=self.model,
        )

    async def rerank(self, request: RerankRequest) -> RerankAnswer:
        query = _place(request.query, _WIDTH)
        scores = [
            sum(one * other for one, other in zip(query, _place(text, _WIDTH), strict=True))
            for text in request.documents
        ]
        ranked = sorted(
            (Ranked(index=index, score=score) for index, score in enumerate(scores)), key=lambda r: -r.score
        )
        usage = Usage(input_tokens=sum(map(count_tokens, (request.query, *request.documents))))
        return RerankAnswer(results=tuple(ranked[: request.top_n or None]), usage=usage, model=self.model)

    async def close(self) -> None:
        self.closed = True

    # What is said.

    async def _said(self, request: ChatRequest) -> AsyncGenerator[ChatChunk]:
        rule, found = self._rule(request)
        counted = Usage(input_tokens=tokens_in(request))
        if rule is None:
            rule = Rule(answer="I have no line for that.")
        await self._pause(rule.wait_s)
        said = 0
        finish: Finish = "stop"
        stops = StopStrings(request.stop)
        for token in split_tokens(_expanded(self._choice(rule, request), found)):
            await self._until(rule, said)
            if request.tokens_max and said >= request.tokens_max:
                finish = "length"
                break
            if said:
                await self._pause(self._pause_s)
            said += 1
            self.tokens_said += 1
            text = stops.feed(token)
            if text:
                yield ChatChunk(text=text)
            if stops.stopped:
                break
        else:
            await self._until(rule, said)
        rest = stops.rest()
        if rest:
            yield ChatChunk(text=rest)
        if rule.refusal:
            finish = "refusal"
            yield ChatChunk(refusal=rule.refusal)
        if rule.tool_calls and finish == "stop":
            finish = "tool_calls"
            yield ChatChunk(tool_calls=tuple(_called(rule.tool_calls, found)))
        usage = rule.usage or dataclasses.replace(counted, output_tokens=said)
        yield ChatChunk(finish=finish, usage=usage)

    async def _until(self, rule: Rule, said: int) -> None:
        """Stall or fail where the rule says so."""
        if rule.stalls_after is not None and said >= rule.stalls_after:
            await asyncio.get_running_loop().create_future()
        if rule.fails is not None and said >= rule.fails_after:
            raise rule.fails

    async def _pause(self, seconds: float) -> None:
        if seconds:
            await self._clock.sleep(seconds)

    def _rule(self, request: ChatRequest) -> tuple[Rule | None, re.Match[str] | None]:
        asked = last_text(request)
        for pattern, rule in self._script:
            found = pattern.search(asked)
            if found:
                return rule, found
        return None, None

    def _choice(self, rule: Rule, request: ChatRequest) -> str:
        if isinstance(rule.answer, str):
            return rule.answer
        return random.Random(f"{request.seed}:{last_text(request)}").choice(list(rule.answer))


def last_text(request: ChatRequest) -> str:
    """What the last message says, or the prompt."""
    if not request.messages:
        return request.prompt
    return text_of(request.messages[-1])


def text_of(message: Message) -> str:
    """The text of a message, of its parts if it has some."""
    return message.content or "".join(part.text for part in message.parts)


def split_tokens(text: str) -> Iterator[str]:
    """Words, each with the space before it; together they are the text."""
    return (found.group() for found in _WORD.finditer(text))


def count_tokens(text: str) -> int:
    return sum(1 for _ in split_tokens(text))


def tokens_in(request: ChatRequest) -> int:
    return count_tokens(request.prompt) + sum(count_tokens(text_of(message)) for message in request.messages)


def _expanded(template: str, found: re.Match[str] | None) -> str:
    return found.expand(template) if found is not None and "\\" in template else template


def _called(calls: Sequence[ToolCall], found: re.Match[str] | None) -> Iterator[ToolCall]:
    for index, call in enumerate(calls):
        yield dataclasses.replace(
            call, id=call.id or f"call_{index}", index=index, arguments=_expanded(call.arguments, found)
        )


def _place(text: str, width: int) -> tuple[float, ...]:
    """A bag of words, hashed into a vector of length one."""
    vector = [0.0] * width
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "big") % width] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(sum(x * x for x in vector))
    return tuple(x / length for x in vector) if length else (1.0, *vector[1:])
