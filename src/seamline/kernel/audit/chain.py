"""One line of an audit: a JSON object that holds the hash of the line before it, and last its own.

The hash is SHA-256 over the bytes of the line as written, up to the member ``hash``. ``prev`` of the first line is
made from the log's name, so that one log cannot pass for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

_MARK = b', "hash": "'
_TAIL = len(_MARK) + 64 + len(b'"}')


class Line(NamedTuple):
    """A line that was read. ``hash`` is what it says of itself, ``true`` whether its bytes agree."""

    number: int
    prev: str
    hash: str
    true: bool
    content: dict[str, Any]


def first(name: str) -> str:
    """``prev`` of the first line of the log called ``name``."""
    return hashlib.sha256(b"seamline audit\n" + name.encode()).hexdigest()


def write(number: int, prev: str, content: Mapping[str, Any]) -> tuple[bytes, str]:
    """The line's bytes, newline included, and its hash."""
    whole = {"number": number, **content, "prev": prev}
    text = json.dumps(whole, ensure_ascii=False, default=str).encode(errors="backslashreplace")[:-1]
    own = hashlib.sha256(text).hexdigest()
    return text + _MARK + own.encode() + b'"}\n', own


def read(raw: bytes) -> Line | None:
    """The line, ``raw`` without its newline; None where these bytes are none."""
    try:
        content: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    entry = cast("dict[str, Any]", content)
    number, prev, own = entry.get("number"), entry.get("prev"), entry.get("hash")
    if type(number) is not int or not isinstance(prev, str) or not isinstance(own, str):
        return None
    text, tail = raw[:-_TAIL], raw[-_TAIL:]
    return Line(number, prev, own, tail == _MARK + hashlib.sha256(text).hexdigest().encode() + b'"}', entry)


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
