"""Answers that are to be JSON of a schema are, or the model is asked again, a bounded number of times.

The schema is the caller's: it fetches nothing, and its patterns run in time linear in what they are run on.
"""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from seamline.models.chat import ChatAnswer, ChatRequest, Message, Usage
from seamline.models.errors import ExtraMissingError
from seamline.models.gateway.errors import AnswerUnfit, BadRequest
from seamline.models.gateway.guardrails.step import Ask, Guard, Words
from seamline.models.gateway.keys import Caller

if TYPE_CHECKING:
    import jsonschema_rs

_SCHEMA_BYTES_MAX: Final = 262_144
_TOLD_MAX: Final = 5
_SHOWN_MAX: Final = 4_000


class Schema:
    """The step ``schema``.

    Args:
        repairs: how often a model is asked again, with its answer and what is wrong with it.
    """

    name = "schema"

    def __init__(self, repairs: int = 1) -> None:
        self.repairs = repairs
        _library()

    def clear(self, words: Words) -> bool:  # noqa: ARG002  # no schema is wanted
        return True

    def clear_answer(self, answer: ChatAnswer) -> bool:  # noqa: ARG002  # that was not asked for one
        return True

    def begin(self, who: Caller, model: str) -> Guard:  # noqa: ARG002  # the same for all
        return _Fits(self.repairs)


class _Fits(Guard):
    def __init__(self, repairs: int) -> None:
        self._repairs = repairs
        self._request: ChatRequest | None = None

    def before(self, request: ChatRequest) -> ChatRequest:
        wanted = request.answer_schema
        if wanted is not None:
            if len(wanted.schema) > _SCHEMA_BYTES_MAX:
                raise BadRequest(f"the schema has {len(wanted.schema)} letters", f"At most {_SCHEMA_BYTES_MAX}.")
            _validator(wanted.schema)
            self._request = request
            self.whole = True
        return request

    async def after(self, answer: ChatAnswer, ask: Ask) -> ChatAnswer:
        request = self._request
        if request is None or request.answer_schema is None:
            return answer
        usage = answer.usage
        for left in range(self._repairs, -1, -1):
            message = answer.message
            if message.tool_calls or message.refusal or answer.finish in ("refusal", "tool_calls"):
                break
            text = _bare(message.content)
            wrong = faults(request.answer_schema.schema, text)
            if not wrong:
                answer = dataclasses.replace(answer, message=dataclasses.replace(message, content=text))
                break
            if not left:
                raise AnswerUnfit(
                    f"the answer is not of the schema {request.answer_schema.name!r}: {wrong[0]}",
                    f"The model was asked {self._repairs + 1} times; say more in the prompt, or ask another model.",
                )
            answer = await ask(_again(request, text, wrong))
            usage = _sum(usage, answer.usage)
        return dataclasses.replace(answer, usage=usage)


def faults(schema: str, text: str) -> list[str]:
    """What is wrong with an answer, each with its place; empty if nothing is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [f"it is not JSON: {error}"]
    if not schema:
        return [] if isinstance(value, dict) else ["it is not a JSON object"]
    found: list[str] = []
    for error in _validator(schema).iter_errors(value):
        where = "/".join(str(step) for step in error.instance_path)
        found.append(f"at /{where}: {error.message[:300]}")
        if len(found) == _TOLD_MAX:
            break
    return found


def _again(request: ChatRequest, text: str, wrong: list[str]) -> ChatRequest:
    told = "That does not fit the schema:\n" + "\n".join(f"- {each}" for each in wrong)
    told += "\nAnswer again with JSON of the schema, and nothing else."
    if not request.messages:
        return dataclasses.replace(request, prompt=f"{request.prompt}{text[:_SHOWN_MAX]}\n\n{told}\n\n")
    said = (Message(role="assistant", content=text[:_SHOWN_MAX]), Message(role="user", content=told))
    return dataclasses.replace(request, messages=(*request.messages, *said))


def _bare(text: str) -> str:
    """Without the fence that models like to put around JSON."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") + 1 : -3].strip()
    return text


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
    )


def _library() -> Any:
    try:
        import jsonschema_rs  # of an extra
    except ImportError as error:
        raise ExtraMissingError(
            "answers are to be checked against schemas, and the library for it is not installed",
            "pip install 'seamline[models-gateway]'",
        ) from error
    return jsonschema_rs


@lru_cache(maxsize=256)
def _validator(schema: str) -> jsonschema_rs.Validator:
    library = _library()

    try:
        return library.validator_for(json.loads(schema or "true"), offline=True, pattern_options=library.RegexOptions())
    except (ValueError, RecursionError, library.ValidationError, library.ReferencingError) as error:
        raise BadRequest(f"the schema cannot be used: {str(error)[:300]}", "Send JSON Schema, without links.") from None
