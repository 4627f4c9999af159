"""How large a question may be, which tools may be offered, and where links may lead."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from seamline.models.chat import ChatAnswer, ChatRequest
from seamline.models.gateway.errors import Blocked, TooLarge
from seamline.models.gateway.guardrails.step import Guard, Words
from seamline.models.gateway.guardrails.texts import pictures, texts
from seamline.models.gateway.keys import Caller

_BYTES_PER_TOKEN: Final = 4
_LINK: Final = re.compile(
    r"(?:https?:[/\\]{1,2}|(?<![\w:/\\])[/\\]{2}(?=[\w-]{1,63}\.\w))[^\s<>\"'`)}]{1,2048}", re.IGNORECASE
)


class Size(Guard):
    """Refuses a question of more than so many tokens, counted as four bytes each."""

    name = "size"

    def __init__(self, tokens_max: int) -> None:
        self._bytes_max = tokens_max * _BYTES_PER_TOKEN

    def begin(self, who: Caller, model: str) -> Guard:  # noqa: ARG002  # the same for all
        return self

    def before(self, request: ChatRequest) -> ChatRequest:
        self.check(
            sum(len(text.encode()) for text in texts(request)) + sum(len(tool.parameters) for tool in request.tools)
        )
        return request

    def clear(self, words: Words) -> bool:
        return not self._bytes_max or words.size <= self._bytes_max

    def clear_answer(self, answer: ChatAnswer) -> bool:  # noqa: ARG002  # questions are what it looks at
        return True

    def check(self, size: int) -> None:
        """Raises TooLarge."""
        if self._bytes_max and size > self._bytes_max:
            raise TooLarge(
                f"the question has {size} bytes, about {size // _BYTES_PER_TOKEN} tokens",
                f"At most {self._bytes_max // _BYTES_PER_TOKEN} are let through: send less of it.",
            )


class Lists(Guard):
    """Refuses tools and links that are not allowed.

    Args:
        tools: names; ``*`` at the end is any that begins so, ``!`` before it is none of these. Empty is all.
        domains: each with what is below it; ``!`` before it is not. Empty is all.
    """

    name = "lists"

    def __init__(self, tools: Sequence[str], domains: Sequence[str]) -> None:
        self._tools = _listed(tools, _is_name)
        self._domains = _listed([domain.lower() for domain in domains], _is_below)

    def begin(self, who: Caller, model: str) -> Guard:  # noqa: ARG002  # the same for all
        return self

    def before(self, request: ChatRequest) -> ChatRequest:
        if self._tools is not None:
            for tool in request.tools:
                if not self._tools(tool.name):
                    raise _blocked(f"the tool {tool.name!r} may not be offered", "Leave it out, or list it in `tools`.")
        if self._domains is not None:
            links = [link for text in texts(request) for link in _LINK.findall(text)]
            for link in (*links, *(url for url in pictures(request) if not url.startswith("data:"))):
                host = _host(link)
                if not host or not self._domains(host):
                    raise _blocked(f"a link to {host or link[:100]!r} may not be in a question", "Leave it out.")
        return request

    def clear(self, words: Words) -> bool:
        return self._domains is None or not any("/" in text or "\\" in text for text in words.texts)

    def clear_answer(self, answer: ChatAnswer) -> bool:  # noqa: ARG002  # questions are what it looks at
        return True


def _listed(entries: Sequence[str], fits: Callable[[str, str], bool]) -> Callable[[str], bool] | None:
    allowed = [entry for entry in entries if not entry.startswith("!")]
    denied = [entry[1:] for entry in entries if entry.startswith("!")]
    if not entries:
        return None
    return lambda name: (
        not any(fits(entry, name) for entry in denied) and (not allowed or any(fits(entry, name) for entry in allowed))
    )


def _is_name(entry: str, name: str) -> bool:
    return name.startswith(entry[:-1]) if entry.endswith("*") else name == entry


def _is_below(entry: str, host: str) -> bool:
    return host == entry or host.endswith("." + entry)


def _host(link: str) -> str:
    """As a browser would understand it."""
    try:
        link = link.replace("\\", "/")
        return (urlsplit(link if "://" in link else "https:" + link).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _blocked(fact: str, remedy: str) -> Blocked:
    error = Blocked(fact, remedy)
    error.step = "lists"
    return error
