"""Transcripts: what calls did, as lines of canonical JSON that must be the same in every topology."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Awaitable
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.module import CallError, Fault
from seamline.testing.errors import TranscriptDiffers
from seamline.testing.http import Response

T = TypeVar("T")
_DIFFERENCE_LINES_MAX = 24
_AROUND = 60


class Transcript:
    """Records calls under labels.

    Identifiers that differ from run to run are given names first: ``transcript.alias(order.id, "the order")``.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._aliases: dict[str, str] = {}

    def alias(self, value: object, name: str) -> None:
        """Write ``<name>`` wherever the text of ``value`` would stand, in lines before and after."""
        self._aliases[str(value)] = f"<{name}>"

    def add(self, label: str, value: object) -> None:
        """Record a value: plain types, dataclasses, pydantic models, HTTP responses, errors."""
        self._record(label, {"value": value})

    async def call(self, label: str, call: Awaitable[T]) -> T | None:
        """Await a call and record what it ended in: its result, its fault or its error. Returns the result."""
        try:
            result = await call
        except (Fault, CallError) as error:
            self._record(label, _ending(error))
            return None
        self._record(label, {"result": result})
        return result

    async def stream(self, label: str, items: AsyncIterator[T]) -> list[T]:
        """Read a stream to its end and record its items, and the fault or error that ended it."""
        seen: list[T] = []
        try:
            async for item in items:
                seen.append(item)  # noqa: PERF401  # what came before an error is kept
        except (Fault, CallError) as error:
            self._record(label, {"items": seen, **_ending(error)})
            return seen
        self._record(label, {"items": seen})
        return seen

    def _record(self, label: str, what: dict[str, Any]) -> None:
        self._lines.append(canonical({"call": label, **what}))

    @property
    def content(self) -> bytes:
        """All lines, aliases applied."""
        text = b"".join(line + b"\n" for line in self._lines).decode()
        for value in sorted(self._aliases, key=len, reverse=True):
            text = text.replace(value, self._aliases[value])
        return text.encode()


def canonical(value: object) -> bytes:
    """JSON with sorted keys and nothing that a run could change."""
    return msgspec.json.encode(msgspec.to_builtins(value, enc_hook=_plain, order="sorted"), order="sorted")


def _plain(value: object) -> object:
    if isinstance(value, Response):
        body: object = value.text if _is_text(value) else value.body
        return {"status": value.status, "type": value.header("content-type"), "body": body}
    if isinstance(value, Fault | SeamlineError):
        return _ending(value)
    dump = getattr(value, "model_dump", None)  # a pydantic model, without importing pydantic
    if dump is not None:
        return cast("object", dump(mode="json"))
    message = f"a transcript cannot hold a {type(value).__name__}"
    raise NotImplementedError(message)


def _is_text(response: Response) -> bool:
    kind = response.header("content-type") or ""
    return kind.startswith("text/") or "json" in kind or "xml" in kind


def _ending(error: Fault | SeamlineError) -> dict[str, Any]:
    if isinstance(error, Fault):
        return {"fault": type(error).__name__, "fields": msgspec.json.decode(error.encode())}
    return {"error": error.code, "fact": error.fact, "remedy": error.remedy}


def compare(content: bytes, expected: bytes, topology: str, other: str) -> None:
    """Raises TranscriptDiffers with the difference."""
    if content == expected:
        return
    lines, wanted = content.decode().splitlines(), expected.decode().splitlines()
    matcher = difflib.SequenceMatcher(None, wanted, lines, autojunk=False)
    shown: list[str] = []
    for kind, low, high, first, last in matcher.get_opcodes():
        if kind != "equal":
            pairs = zip_longest(wanted[low:high], lines[first:last], fillvalue="")
            shown += [text for pair in pairs for text in _differing(*pair, other, topology)]
    more = f"\n({len(shown) - _DIFFERENCE_LINES_MAX} lines more)" if len(shown) > _DIFFERENCE_LINES_MAX else ""
    told = "\n".join(shown[:_DIFFERENCE_LINES_MAX])
    raise TranscriptDiffers(f"{topology!r} did not do what {other!r} did:\n{told}{more}")


def _differing(wanted: str, got: str, other: str, topology: str) -> list[str]:
    """Two lines around the place where they part."""
    place = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    start = max(place - _AROUND, 0)
    label = wanted[:_AROUND] if start else ""
    width = max(len(other), len(topology))
    return [
        f"  {name:>{width}}: {label and label + ' ... '}{line[start : place + 2 * _AROUND] or '(no such line)'}"
        for name, line in ((other, wanted), (topology, got))
    ]


def compare_with_golden(content: bytes, golden: Path, topology: str, *, update: bool) -> None:
    """Compare with the checked-in file, or write it. Raises TranscriptDiffers."""
    if update:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_bytes(content)
    elif golden.exists():
        compare(content, golden.read_bytes(), topology, golden.name)
