"""A model that says itself that it is to be watched: ``@module.model(..., watch=Watch())`` is all there is to write."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence
from contextvars import Context
from decimal import Decimal
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner
from seamline.models.chat import Chat, ChatAnswer, ChatRequest, EmbedAnswer
from seamline.models.watch.answers import Answers, PassingAnswer, question_of
from seamline.models.watch.capturing import Capturing
from seamline.models.watch.datasets import Datasets
from seamline.models.watch.evaluators import Length, Refusal
from seamline.models.watch.judges import Judge
from seamline.models.watch.reference import Reference, Row, Value
from seamline.models.watch.watcher import Watcher
from seamline.module.contract import compile_contract
from seamline.module.models import Artefacts, ModelType, Watch
from seamline.module.module import Module

_log = logging.getLogger("seamline.models")
QUALITY: Final = "quality"
"""Of answers, as whoever knows it has told of each; see :func:`seamline.models.rollout.route.scored`."""
_WORD_MAX: Final = 64
_JUDGED_MAX: Final = 16
"""Answers that wait for their grade; more are not judged."""
_VECTOR_MIN: Final = 8
"""Fewer numbers are no place in a space of meanings."""
_HAS_NUMPY: Final = find_spec("numpy") is not None


def watched(
    model: ModelType, module: Module, artefacts: Artefacts | None, clock: Clock, datasets: Datasets
) -> Watched | None:
    """Who watches a model as it was declared, None where it is not to be watched.

    Raises:
        ReferenceUnfit: what it is to be compared with cannot be used.
        CaptureError: what it is to be captured in cannot be.
    """
    if model.watch is None:
        return None
    return Watched(model, model.watch, module, _reference(model.watch, module.folder, artefacts), clock, datasets)


class Watched:
    """One version, watched in this process. See :class:`~seamline.models.runtime.Watching`."""

    def __init__(
        self, model: ModelType, watch: Watch, module: Module, reference: Reference | None, clock: Clock,
        datasets: Datasets,
    ) -> None:  # fmt: skip
        self.watcher = Watcher(
            module.name, model.contract.__name__, model.version, reference, clock, window_s=watch.window_s,
            rows_min=watch.rows_min, rows_max=watch.rows_max,
        )  # fmt: skip
        self._watch = watch
        self._specs = compile_contract(model.contract).methods
        self._compared = frozenset(watch.methods or self._specs)
        self._chats = issubclass(model.contract, Chat)
        evaluators = watch.evaluators
        if evaluators is None:
            evaluators = (Refusal(), Length()) if self._chats else ()
        self._evaluates = bool(evaluators)
        self.answers = Answers(self.watcher, evaluators=evaluators, cost=watch.cost)
        self._judge: Judge | None = watch.judge(clock) if watch.judge is not None and self._chats else None
        self._judging = TaskOwner(f"judging {model.name}")
        self._judged = 0
        self._capturing = Capturing.of(model, watch.capture, datasets)

    def answered(self, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        self._keep(method, arguments, answer)
        if self._left_out():
            return
        self._compare(method, arguments, answer)
        if isinstance(answer, ChatAnswer):
            self.answers.saw(arguments[0], answer)
            self._have_judged(arguments[0], answer)
        elif self._evaluates and isinstance(answer, str):
            self.answers.judge(next((each for each in arguments if isinstance(each, str)), ""), answer)

    def stream(self, method: str, arguments: tuple[Any, ...]) -> _Stream:
        return _Stream(self, method, arguments)

    def told(self, name: str, value: float) -> None:
        """One value of a score, by whoever knows it."""
        self.answers.add(name, value)

    def stats(self) -> dict[str, Any]:
        captured = {} if self._capturing is None else {"captured": self._capturing.stats()}
        judging = {} if self._judge is None else {"judging": self._judged}
        return self.watcher.stats() | captured | judging

    async def close(self) -> None:
        self.watcher.close()
        await self._judging.stop()
        if self._judge is not None:
            await self._judge.close()
        if self._capturing is not None:
            await self._capturing.close()

    def request_of(self, arguments: tuple[Any, ...]) -> ChatRequest | None:
        """What a language model is asked."""
        return arguments[0] if self._chats and arguments and isinstance(arguments[0], ChatRequest) else None

    def streamed(self, method: str, arguments: tuple[Any, ...], passing: PassingAnswer) -> None:
        """A stream has come to its end."""
        if self.request_of(arguments) is not None:
            self._keep("complete", arguments, passing.answer())
        if self._left_out():
            return
        self._compare(method, arguments, None)
        passing.ended()
        if (request := self.request_of(arguments)) is not None:
            self._have_judged(request, passing.answer())

    def _have_judged(self, request: ChatRequest, answer: ChatAnswer) -> None:
        """By the judge, if the lot falls on it and not too many wait."""
        if self._judge is not None and self._judged < _JUDGED_MAX:
            self._judged += 1
            grading = self._grade(self._judge, question_of(request), answer.message.content)
            # It is no part of the call, whose deadline may have passed by then.
            Context().run(self._judging.spawn, grading, name=f"judging {self.watcher.model}")

    async def _grade(self, judge: Judge, question: str, answer: str) -> None:
        try:
            grade = await judge.sample(question, answer)
            if grade is not None:
                self.answers.graded(grade)
        except Exception as error:  # of its engine; the answer was given
            _log.warning("an answer of %s %s was not judged: %s", self.watcher.model, self.watcher.version, error)
        finally:
            self._judged -= 1

    def _left_out(self) -> bool:
        return self._watch.share < 1.0 and random.random() >= self._watch.share

    def _compare(self, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        if method not in self._compared:
            return
        if self._watch.row is not None:
            row: Row = self._watch.row(answer, *arguments)
        elif (request := self.request_of(arguments)) is not None:
            row = {"messages": len(request.messages), "asked_words": len(question_of(request).split())}
        else:
            row = row_of([each.name for each in self._specs[method].parameters], arguments, answer)
        self.watcher.saw(row, _vector(answer))

    def _keep(self, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        if self._capturing is not None:
            self._capturing.keep(method, arguments, answer)


class _Stream:
    """See :class:`~seamline.models.runtime.Passing`."""

    def __init__(self, watched: Watched, method: str, arguments: tuple[Any, ...]) -> None:
        self._watched = watched
        self._method = method
        self._arguments = arguments
        self._passing = watched.answers.passing(watched.request_of(arguments))
        self.passed = self._passing.passed

    def ended(self) -> None:
        self._watched.streamed(self._method, self._arguments, self._passing)


def row_of(names: Sequence[str], arguments: Sequence[Any], answer: Any) -> dict[str, Value]:
    """What can be compared of a call: numbers, words and booleans among its arguments and its answer, also one level
    within them; of a list its length, of a text its words. A field of the answer whose name an argument has is
    ``answer_<name>``."""
    row: dict[str, Value] = {}
    for name, value in zip(names, arguments, strict=False):
        _add(row, name, value)
    said: dict[str, Value] = {}
    _add(said, "answer", answer)
    for name, value in said.items():
        row[f"answer_{name}" if name in row else name] = value
    return row


def _add(row: dict[str, Value], name: str, value: Any) -> None:
    """Of one argument, or of the answer."""
    kind = cast("type[Any]", type(value))
    if kind in _PLAIN:
        row[name] = value
    elif kind is str:
        row[name] = value[:_WORD_MAX]
        row[f"{name}_words"] = len(value.split())
    elif (found := _single(value)) is not _NONE:
        row[name] = found
    elif isinstance(value, Mapping):
        for field, each in cast("Mapping[Any, Any]", value).items():
            _add_field(row, str(field), each)
    elif kind in _LISTS:
        row[f"{name}_count"] = len(value)
    else:
        for field in _fields(kind):
            _add_field(row, field, getattr(value, field))


def _add_field(row: dict[str, Value], name: str, value: Any) -> None:
    kind = cast("type[Any]", type(value))
    if kind in _PLAIN:
        row[name] = value
    elif kind is str:
        row[name] = value[:_WORD_MAX]
    elif (found := _single(value)) is not _NONE:
        row[name] = found
    elif kind in _LISTS:
        row[f"{name}_count"] = len(value)


_PLAIN: Final[frozenset[type[Any]]] = frozenset({int, float, bool, type(None)})
_LISTS: Final[frozenset[type[Any]]] = frozenset({list, tuple, set, frozenset, dict})
_NONE: Final = cast("Value", object())


def _single(value: Any) -> Value:
    """What is a number or a word by another name."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:_WORD_MAX]
    return float(value) if isinstance(value, Decimal) else _NONE


@cache
def _fields(kind: type[Any]) -> tuple[str, ...]:
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind))
    return tuple(getattr(kind, "__struct_fields__", None) or getattr(kind, "model_fields", None) or ())


def _vector(answer: Any) -> Sequence[float] | None:
    """The place in a space of meanings that was answered, where one was."""
    if isinstance(answer, EmbedAnswer):
        answer = answer.vectors[0] if answer.vectors else None
    if not _HAS_NUMPY or not isinstance(answer, list | tuple):
        return None
    numbers = cast("Sequence[Any]", answer)
    return numbers if len(numbers) >= _VECTOR_MIN and isinstance(numbers[0], float) else None


def _reference(watch: Watch, folder: Path, artefacts: Artefacts | None) -> Reference | None:
    if not watch.reference:
        return None
    own = artefacts.folder / watch.reference if artefacts is not None else None
    return Reference.load(own if own is not None and own.exists() else folder / watch.reference)
