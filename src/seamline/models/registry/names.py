"""How models, their versions and their files may be called."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import NamedTuple

from seamline.models.registry.errors import BadReferenceError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PATH_CHARACTERS_MAX = 300
_HOW = "Write <model>:<version> or <model>@<alias>."


class Reference(NamedTuple):
    """``minilm:2``, ``minilm@champion``, ``minilm@sha256:...``; ``minilm`` alone is its champion."""

    name: str
    version: str = ""
    alias: str = ""
    digest: str = ""

    @staticmethod
    def parse(text: str) -> Reference:
        """Raises BadReferenceError."""
        name, at, rest = text.partition("@")
        if at:
            if rest.startswith("sha256:"):
                return Reference(checked_name(name), digest=checked_digest(rest))
            return Reference(checked_name(name), alias=checked_name(rest, "alias"))
        name, colon, version = text.partition(":")
        if colon:
            return Reference(checked_name(name), version=checked_name(version, "version"))
        return Reference(checked_name(name), alias="champion")

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else f"{self.name}@{self.alias or self.digest}"


def checked_name(text: str, what: str = "name") -> str:
    """Raises BadReferenceError."""
    if not _NAME.fullmatch(text):
        raise BadReferenceError(
            f"{text!r} is no {what} of a model", f"Letters, digits, '.', '_' and '-', at most 128. {_HOW}"
        )
    return text


def checked_digest(text: str) -> str:
    """Raises BadReferenceError."""
    if not _DIGEST.fullmatch(text):
        raise BadReferenceError(f"{text!r} is no digest", "sha256: and 64 hexadecimal digits.")
    return text


def checked_path(text: str) -> str:
    """The path of a file inside its model, which never leads out of it. Raises BadReferenceError."""
    parts = PurePosixPath(text).parts
    whole = text == "/".join(parts) and 0 < len(text) <= _PATH_CHARACTERS_MAX
    if not whole or text.startswith("/") or any(part in {"..", "."} for part in parts) or not text.isprintable():
        raise BadReferenceError(f"{text[:100]!r} is no path of a file inside a model", "Such as onnx/model.onnx.")
    if "\\" in text or ":" in text:
        raise BadReferenceError(f"{text[:100]!r} means something else on other machines", "Without '\\' and ':'.")
    return text
