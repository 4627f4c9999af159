"""Versions side by side on known cases, and on what was captured."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import msgspec

from seamline.models.chat import ChatAnswer, ChatRequest
from seamline.models.watch.answers import question_of
from seamline.models.watch.datasets import Dataset
from seamline.models.watch.errors import CaptureError
from seamline.models.watch.evaluators import Evaluator, Length, Refusal, Toxicity
from seamline.module.contract import UNARY, MethodSpec

_log = logging.getLogger("seamline.models")
EXAMPLES_MAX: Final = 200
_SAID_EVERY_S: Final = 1.0
_SHOWN_MAX: Final = 2_000
_OF_TEXTS: Final[Sequence[Evaluator]] = (Refusal(), Toxicity(), Length())

Ask = Callable[[str, str, tuple[Any, ...]], Awaitable[Any]]
"""The answer of a version to a method with arguments."""
Same = Callable[[Any, Any], bool]
"""Whether two answers, as JSON has them, are one."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A call, with what is to be answered if that is known, and what was answered then if it was captured."""

    method: str
    arguments: dict[str, Any]
    expected: Any = msgspec.UNSET
    then: Any = msgspec.UNSET


class _Score(msgspec.Struct):
    """Of one version."""

    known: int = 0
    right: int = 0
    before: int = 0
    as_then: int = 0
    errors: int = 0
    answered: int = 0
    seconds: float = 0.0
    texts: dict[str, list[float]] = msgspec.field(default_factory=dict[str, list[float]])


def cases_of(dataset: Dataset, contract: str, last: int) -> list[Case]:
    """The newest calls of a contract in a dataset. Raises CaptureError where there are none."""
    lines = [line for line in dataset.newest(last, contract) if line.method]
    if not lines:
        held = ", ".join(dataset.told().models) or "nothing"
        raise CaptureError(f"no call of {contract} was captured there", f"What was captured: {held}.")
    return [
        Case(
            method=line.method, arguments=line.asked, expected=line.notes.get("expected", msgspec.UNSET),
            then=line.answered,
        )
        for line in lines
    ]  # fmt: skip


class Examination:
    """Asks versions the same questions, one after another.

    Args:
        specs: the contract's methods.
        same: of answers to known cases.
        alike: of answers to what was captured.
        examples: so many cases are told one by one, those first on which versions differ.
    """

    def __init__(
        self, contract: str, specs: Mapping[str, MethodSpec], ask: Ask, *, same: Same, alike: Same, examples: int = 0
    ) -> None:
        self._contract = contract
        self._specs = specs
        self._ask = ask
        self._same = same
        self._alike = alike
        self._examples = min(examples, EXAMPLES_MAX)

    async def run(
        self, versions: Sequence[str], cases: Sequence[Case], say: Callable[[str], Awaitable[None]]
    ) -> dict[str, Any]:
        """For JSON: by version, and examples if they were asked for.

        Raises:
            CaptureError: a case is no call of the contract.
        """
        asked = [(case, self._arguments(number, case)) for number, case in enumerate(cases)]
        scores = {version: _Score() for version in versions}
        differing: list[dict[str, Any]] = []
        alike: list[dict[str, Any]] = []
        said = monotonic()
        for number, (case, arguments) in enumerate(asked):
            answers = {version: await self._answer(version, case, arguments, scores[version]) for version in versions}
            self._note(case, answers, differing, alike)
            if monotonic() - said >= _SAID_EVERY_S:
                said = monotonic()
                await say(f"{number + 1:,} of {len(asked):,} cases")
        told = {version: _told(score, len(asked)) for version, score in scores.items()}
        shown = [*differing, *alike][: self._examples]
        return {"versions": told, "cases": len(asked)} | ({"examples": shown} if self._examples else {})

    def _arguments(self, number: int, case: Case) -> tuple[Any, ...]:
        spec = self._specs.get(case.method)
        if spec is None or spec.kind != UNARY:
            raise CaptureError(
                f"case {number} asks {case.method!r}",
                f"{self._contract} has {', '.join(self._specs)}; streams are not examined.",
            )
        return spec.decode_request(msgspec.json.encode(case.arguments))

    async def _answer(self, version: str, case: Case, arguments: tuple[Any, ...], score: _Score) -> Any:
        """As JSON has it; an exception where there is none."""
        score.known += case.expected is not msgspec.UNSET
        score.before += case.then is not msgspec.UNSET
        began = monotonic()
        try:
            answer = await self._ask(version, case.method, arguments)
        except Exception as error:  # whatever its code raises
            _log.warning("%s@%s could not answer a case: %s", self._contract, version, error)
            score.errors += 1
            return error
        score.seconds += monotonic() - began
        score.answered += 1
        found = msgspec.json.decode(self._specs[case.method].result.encode(answer))
        if case.expected is not msgspec.UNSET:
            score.right += self._same(case.expected, found)
        if case.then is not msgspec.UNSET:
            score.as_then += self._alike(case.then, found)
        if isinstance(answer, ChatAnswer) and isinstance(arguments[0], ChatRequest):
            for evaluator in _OF_TEXTS:
                value = evaluator.score(question_of(arguments[0]), answer.message.content)
                if value is not None:
                    score.texts.setdefault(evaluator.name, []).append(value)
        return found

    def _note(
        self, case: Case, answers: Mapping[str, Any], differing: list[dict[str, Any]], alike: list[dict[str, Any]]
    ) -> None:
        if not self._examples:
            return
        reference = case.expected if case.expected is not msgspec.UNSET else case.then
        given = list(answers.values())
        first = given[0] if reference is msgspec.UNSET else reference
        same = all(not isinstance(each, Exception) and self._alike(first, each) for each in given)
        into = alike if same else differing
        if len(into) < self._examples:
            into.append(
                {
                    "method": case.method, "asked": _shown(case.arguments), "differs": not same,
                    **({"expected": _shown(case.expected)} if case.expected is not msgspec.UNSET else {}),
                    **({"then": _shown(case.then)} if case.then is not msgspec.UNSET else {}),
                    "answers": {version: _shown(each) for version, each in answers.items()},
                }
            )  # fmt: skip


def words_of(answer: Any) -> Any:
    """What of an answer, as JSON has it, is compared with another: of a language model's only what it says."""
    message = answer.get("message") if isinstance(answer, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return message.get("content") if isinstance(message, dict) else answer  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _told(score: _Score, cases: int) -> dict[str, float]:
    told: dict[str, float] = {"cases": cases}
    if score.known:
        told["right"] = score.right / score.known
    if score.before:
        told["as then"] = score.as_then / score.before
    told["errors"] = score.errors / cases
    told["ms"] = round(score.seconds * 1000 / score.answered, 3) if score.answered else 0.0
    return told | {name: sum(values) / len(values) for name, values in score.texts.items()}


def _shown(value: Any) -> str:
    text = f"{type(value).__name__}: {value}" if isinstance(value, Exception) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"
