"""What an engine says when it says no, whichever engine it is."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec

from seamline.kernel.wire.http1_message import Header
from seamline.models.errors import EngineRefused

_SAID_CHARACTERS_MAX: Final = 300
_AGAIN_S_MAX: Final = 24 * 3600.0
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_exceeded",
}


def refusal(engine: str, status: int, headers: Iterable[Header], body: bytes, now: datetime) -> EngineRefused:
    """The error that says the same. ``body`` may be anything."""
    said, kind = words_of(body)
    error = EngineRefused(
        f"{engine} refused with status {status}" + (f": {said[:_SAID_CHARACTERS_MAX]}" if said else ""),
        _remedy(status),
    )
    error.status = status
    error.kind = kind or _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error.retry_after_s = retry_after_s(headers, now)
    return error


def words_of(body: bytes) -> tuple[str, str]:
    """Message and kind, of OpenAI's form, Anthropic's, or those of others who keep to neither."""
    try:
        told: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "", ""
    inner: Any = cast("dict[str, Any]", told).get("error", told) if isinstance(told, dict) else None
    if isinstance(inner, str):
        return inner, ""
    if not isinstance(inner, dict):
        return "", ""
    fields = cast("dict[str, Any]", inner)
    said = fields.get("message") or fields.get("detail") or ""
    kinds = [kind for kind in (fields.get("code"), fields.get("type")) if isinstance(kind, str) and kind != "error"]
    return said if isinstance(said, str) else "", next(filter(None, kinds), "")


def retry_after_s(headers: Iterable[Header], now: datetime) -> float:
    """When it may be asked again, from whichever header says so; 0 if none does."""
    told = {name: value.decode("latin-1").strip() for name, value in headers}
    if (ms := _number(told.get(b"retry-after-ms", ""))) is not None:
        return _bounded(ms / 1000)
    if after := told.get(b"retry-after"):
        seconds = _number(after)
        return _bounded(seconds if seconds is not None else _until(after, now))
    waits = [
        _span_s(value) or _until(value, now)
        for name, value in told.items()
        if b"ratelimit" in name and b"reset" in name and _used_up(told, name)
    ]
    return _bounded(max(waits, default=0.0))


def _used_up(told: dict[bytes, str], reset: bytes) -> bool:
    """Whether nothing remains of what this header says the end of."""
    remaining = told.get(reset.replace(b"reset", b"remaining"))
    return remaining is None or _number(remaining) == 0


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _span_s(text: str) -> float:
    """``6m0s``, ``20ms``, or a number of seconds."""
    number = _number(text)
    if number is not None:
        return number
    found = _SPAN.findall(text)
    whole = "".join(f"{amount}{unit}" for amount, unit in found) == text
    return sum(float(amount) * _UNITS[unit] for amount, unit in found) if whole else 0.0


def _until(text: str, now: datetime) -> float:
    """Seconds until a date of HTTP's form or of RFC 3339's."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - now).total_seconds()


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), _AGAIN_S_MAX) if seconds == seconds else 0.0  # noqa: PLR0124  # not a number


def _remedy(status: int) -> str:
    if status == 429:
        return "Ask less often, or another engine."
    if status in (401, 403):
        return "Is its key right, and may it use this model?"
    if status == 404:
        return "Are the address and the model's name right?"
    return "It is not well; ask another, or later." if status >= 500 else "What was asked is not to its liking."
