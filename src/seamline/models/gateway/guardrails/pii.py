"""Data of people, and secrets, do not reach the engine; the caller gets them back.

In what is asked each value is replaced by a placeholder, ``[EMAIL_1]``, the same one for the same value; in the answer
to this caller the placeholders are put back. What looks like such data in an answer and was not the caller's is
replaced for good, ``[EMAIL]``.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, Literal

from seamline.models.chat import ChatAnswer, ChatChunk, ChatRequest, ToolCall
from seamline.models.gateway.errors import Blocked
from seamline.models.gateway.guardrails.detect import KINDS, find
from seamline.models.gateway.guardrails.holding import Held
from seamline.models.gateway.guardrails.step import Ask, Guard, Words
from seamline.models.gateway.guardrails.texts import changed, texts
from seamline.models.gateway.keys import Caller

_CALLS_MAX: Final = 128


class Pii:
    """The step ``pii``.

    Args:
        action: ``block`` refuses a question that has any of it.
    """

    name = "pii"

    def __init__(self, kinds: Sequence[str] = KINDS, action: Literal["mask", "block"] = "mask") -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(KINDS)}")
        self.kinds = tuple(kinds)
        self.action = action

    def clear(self, words: Words) -> bool:
        return not any(find(text, self.kinds) for text in words.texts)

    def clear_answer(self, answer: ChatAnswer) -> bool:
        said, kinds = answer.message, self.kinds
        if find(said.content, kinds) or (said.refusal and find(said.refusal, kinds)):
            return False
        return not any(find(call.arguments, kinds) for call in said.tool_calls)

    def begin(self, who: Caller, model: str) -> Guard:  # noqa: ARG002  # the same for all
        return _Masks(self)


class _Masks(Guard):
    def __init__(self, step: Pii) -> None:
        self._step = step
        self._placeholders: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._taken = ""
        self._text = Held(self._shown, step.kinds)
        self._refusal = Held(self._shown, step.kinds)
        self._arguments: dict[int, Held] = {}

    # What is asked.

    def before(self, request: ChatRequest) -> ChatRequest:
        kinds = self._step.kinds
        if not any(find(text, kinds) for text in texts(request)):
            return request
        if self._step.action == "block":
            found = Counter(each.kind for text in texts(request) for each in find(text, kinds))
            told = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(found.items()))
            error = Blocked(f"the question has data that may not go out: {told}", "Ask without them.")
            error.step = "pii"
            raise error
        self._taken = "\n".join(text for text in texts(request) if "[" in text)
        return changed(request, self._masked, self._masked)

    def _masked(self, text: str) -> str:
        parts: list[str] = []
        done = 0
        for each in find(text, self._step.kinds):
            parts += (text[done : each.begins], self._placeholder(each.kind, text[each.begins : each.ends]))
            done = each.ends
        return "".join(parts) + text[done:] if parts else text

    def _placeholder(self, kind: str, value: str) -> str:
        known = self._placeholders.get(value)
        if known is not None:
            return known
        while True:
            self._counts[kind] += 1
            placeholder = f"[{kind.upper()}_{self._counts[kind]}]"
            if placeholder not in self._taken:
                break
        self._placeholders[value] = placeholder
        self._values[placeholder] = value
        return placeholder

    # What is answered.

    def _shown(self, text: str, *, in_json: bool = False) -> str:
        parts: list[str] = []
        done = 0
        for each in find(text, self._step.kinds):
            parts += (text[done : each.begins], f"[{each.kind.upper()}]")
            done = each.ends
        text = "".join(parts) + text[done:]
        if "[" in text:
            for placeholder, value in self._values.items():
                text = text.replace(placeholder, json.dumps(value)[1:-1] if in_json else value)
        return text

    def feed(self, chunk: ChatChunk) -> Iterable[ChatChunk]:
        text, refusal = self._text.push(chunk.text), self._refusal.push(chunk.refusal)
        calls = [dataclasses.replace(call, arguments=self._of(call).push(call.arguments)) for call in chunk.tool_calls]
        if chunk.finish:
            text, refusal = text + self._text.rest(), refusal + self._refusal.rest()
            calls += self._rest_of_calls()
        out = dataclasses.replace(chunk, text=text, refusal=refusal, tool_calls=tuple(calls))
        return (out,) if text or refusal or calls or chunk.finish or chunk.usage is not None else ()

    def finish(self) -> Iterable[ChatChunk]:
        out = ChatChunk(
            text=self._text.rest(), refusal=self._refusal.rest(), tool_calls=tuple(self._rest_of_calls())
        )  # fmt: skip
        return (out,) if out.text or out.refusal or out.tool_calls else ()

    def _of(self, call: ToolCall) -> Held:
        held = self._arguments.get(call.index)
        if held is None:
            if len(self._arguments) >= _CALLS_MAX:
                raise Blocked("the answer has too many tool calls", "")
            held = self._arguments[call.index] = Held(partial(self._shown, in_json=True), self._step.kinds)
        return held

    def _rest_of_calls(self) -> list[ToolCall]:
        rests = [(index, held.rest()) for index, held in self._arguments.items()]
        return [ToolCall(index=index, arguments=rest) for index, rest in rests if rest]

    async def after(self, answer: ChatAnswer, ask: Ask) -> ChatAnswer:  # noqa: ARG002  # asks nothing
        message = answer.message
        calls = tuple(
            dataclasses.replace(call, arguments=self._shown(call.arguments, in_json=True))
            for call in message.tool_calls
        )  # fmt: skip
        shown = dataclasses.replace(
            message, content=self._shown(message.content), refusal=self._shown(message.refusal), tool_calls=calls
        )
        return dataclasses.replace(answer, message=shown)
