"""Between texts and tokens, with what a model's files say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tokenizers import Tokenizer

from seamline.models.formats.errors import WeightsError

_TOKENS_OF_A_CHARACTER: Final = 6
"""A character has four bytes at most; what is none after so many tokens will not become one."""


class LlamaTokenizer:
    """See :class:`~seamline.models.runtimes.tokens.TextTokenizer`.

    Args:
        tokenizer: of the package tokenizers.
        template: Jinja, if the model talks.
        specials: what the template may name.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "", specials: Mapping[str, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.specials = MappingProxyType(dict(specials or {}))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def stream(self) -> Callable[[int], str]:
        ids: list[int] = []
        shown = behind = 0
        decode = self.tokenizer.decode

        def text(token: int) -> str:
            # Decoded together with the tokens before it, since a space may depend on them.
            nonlocal shown, behind
            ids.append(token)
            before, now = decode(ids[behind:shown]), decode(ids[behind:])
            if now.endswith("\ufffd") and len(ids) - shown < _TOKENS_OF_A_CHARACTER:
                return ""
            behind, shown = shown, len(ids)
            return now[len(before) :]

        return text


def tokenizer_of_folder(folder: Path, read_json: Callable[[Path], dict[str, Any]]) -> LlamaTokenizer:
    """From ``tokenizer.json`` and, if there is one, ``tokenizer_config.json``. Raises WeightsError."""
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # it raises nothing narrower
        raise WeightsError(f"{path.name} cannot be read: {error}", "", place=str(path)) from error
    told = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    template = told.get("chat_template")
    if not isinstance(template, str):
        other = folder / "chat_template.jinja"
        template = other.read_text(encoding="utf-8") if other.exists() else ""
    return LlamaTokenizer(tokenizer, template, _specials(told))


def _specials(told: Mapping[str, Any]) -> dict[str, str]:
    """A token is a text, or an object that has it as its content."""
    found: dict[str, str] = {}
    for key, value in told.items():
        content = value.get("content") if isinstance(value, Mapping) else value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found
