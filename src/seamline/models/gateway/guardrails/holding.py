"""A text that comes in pieces, changed as if it had come whole: what could still become a match is held back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from seamline.models.gateway.guardrails.detect import MATCH_MAX, find

HOLD_MAX: Final = 2 * MATCH_MAX
"""More is not held back."""
BLOCK_MAX: Final = 9_000
"""But of a private key, that is the most."""
_BLOCK: Final = "-----BEGIN "
_BLOCK_ENDS: Final = re.compile(r"-----END [A-Z ]{0,30}-----")


class Held:
    """One channel of a stream: its text, its refusal, the arguments of one tool call."""

    __slots__ = ("_change", "_kept", "_kinds")

    def __init__(self, change: Callable[[str], str], kinds: tuple[str, ...]) -> None:
        self._change = change
        self._kinds = kinds
        self._kept = ""

    def push(self, text: str) -> str:
        """What may go out."""
        kept = self._kept + text
        cut = self._cut(kept)
        self._kept = kept[cut:]
        return self._change(kept[:cut]) if cut else ""

    def rest(self) -> str:
        """No more comes."""
        kept, self._kept = self._kept, ""
        return self._change(kept) if kept else ""

    def _cut(self, text: str) -> int:
        cut, block = _last_word(text), text.find(_BLOCK)
        while 0 <= block < len(text):
            over = _BLOCK_ENDS.search(text, block)
            if over is None and len(text) - block < BLOCK_MAX:
                return block
            ends = over.end() if over is not None else len(text)
            if block < cut < ends:
                cut = block
                break
            block = text.find(_BLOCK, ends)
        if len(text) - cut <= HOLD_MAX:
            return cut
        # Nothing to part it at: all but what the longest match may still need, and no match in two.
        cut = len(text) - MATCH_MAX
        for match in find(text, self._kinds):
            if match.begins < cut < match.ends:
                cut = match.begins or match.ends
        opened = text.rfind("[", max(cut - 32, 0), cut)
        return opened if opened > 0 and "]" not in text[opened:cut] else cut


def _last_word(text: str) -> int:
    """Behind the last space that parts what cannot belong together; zero is nowhere.

    After a word that ends in a small letter nothing of what is looked for goes on: only groups of digits and capitals
    have spaces between them.
    """
    place = len(text)
    while (place := max(text.rfind(" ", 0, place), text.rfind("\n", 0, place))) > 0:
        left = text[place - 1]
        if left in ",;:!?\"'" and place > 1:
            left = text[place - 2]
        if left.isalpha() and not ("A" <= left <= "Z"):
            return place + 1
    return 0
