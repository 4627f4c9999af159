"""Signs that a text wants to be an instruction: found by what such texts say, scored, and told.

These are heuristics. They stop what is copied from the web, not an adversary who writes for them; what a model may do
is for its tools and their policy to bound. Each sign has a weight, and the score of a text is what they say together:
``1 - (1 - w1)(1 - w2)...``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple

from seamline.models.chat import ChatAnswer, ChatRequest
from seamline.models.gateway.errors import Blocked
from seamline.models.gateway.guardrails.step import Guard, Words
from seamline.models.gateway.guardrails.texts import texts
from seamline.models.gateway.keys import Caller

TEXT_MAX: Final = 65_536
"""Of a longer text the first and the last half of this many letters are looked at."""
TEXTS_MAX: Final = 4 * TEXT_MAX
"""Of all texts of a question together, the newest first."""
_GAP: Final = r"[^.!?\n]{0,40}?"


class Sign(NamedTuple):
    name: str
    weight: float
    anchors: tuple[str, ...]
    """One of them is in every text that the pattern matches: what has none is not searched."""
    pattern: re.Pattern[str]


def _sign(name: str, weight: float, anchors: str, pattern: str) -> Sign:
    return Sign(name, weight, tuple(anchors.split("|")), re.compile(pattern))


_EARLIER: Final = r"(?:previous|prior|above|earlier|preceding|existing|initial|original|system|all)"
_WORDS: Final = r"(?:instructions?|prompts?|rules|guidelines|directives|commands|directions|messages|context)"
SIGNS: Final = (
    _sign(
        "ignore-instructions", 0.9, "ignore|disregard|forget|override|bypass",
        rf"\b(?:ignore|disregard|forget|override|bypass)\b{_GAP}\b{_EARLIER}\b{_GAP}\b{_WORDS}\b",
    ),
    _sign(
        "ignore-your", 0.85, "ignore|disregard|forget",
        rf"\b(?:ignore|disregard|forget)\b (?:all |any )?(?:of )?(?:your|the system) {_WORDS}\b",
    ),
    _sign(
        "forget-everything", 0.85, "forget everything|ignore everything|disregard everything",
        r"\b(?:forget|ignore|disregard) everything\b[^.!?\n]{0,20}?"
        r"\b(?:above|before|you (?:were|have been|know)|told)\b",
    ),
    _sign(
        "new-instructions", 0.6, "instruction", r"\b(?:new|updated|real|actual) (?:system )?instructions?(?: are)?\s*:"
    ),
    _sign(
        "reveal-prompt", 0.85, "prompt|instructions",
        rf"\b(?:reveal|show|print|repeat|output|display|leak|dump|tell|give)\b(?: me)?(?:{_GAP}"
        r"\b(?:(?:your|the|its|this) system prompt|(?:hidden|secret|initial|original|your) (?:system )?"
        r"(?:prompt|instructions))| system prompt)\b",
    ),
    _sign(
        "repeat-above", 0.8, "above|before this",
        r"\b(?:repeat|print|output|copy)\b[^.!?\n]{0,20}?\b(?:everything|all|text|words|the words|verbatim)\b"
        r"[^.!?\n]{0,20}?\b(?:above|before this)\b",
    ),
    _sign(
        "you-are-now", 0.55, "you are now|you're now|from now on",
        r"\b(?:you are now|you're now|from now on,? you)\b",
    ),
    _sign(
        "unrestricted", 0.7, "restrict|filter|limitation|guideline|censor|rules",
        r"\b(?:without|no|free (?:of|from)|ignor\w{1,3}|not bound by|bypass\w{0,3})\b (?:any |all |your |the |its )?"
        r"(?:content |safety |ethical |moral )?(?:restrictions?|filters?|limitations?|guidelines?|censorship|rules)\b",
    ),
    _sign(
        "jailbreak-name", 0.8, "do anything now|mode|jailbr",
        r"\b(?:do anything now|developer mode|god mode|jailbroken|dan mode)\b",
    ),
    _sign(
        "role-play", 0.4, "pretend|act as|roleplay|role-play|simulate",
        r"\b(?:pretend|act as|roleplay as|role-play as|simulate)\b[^.!?\n]{0,40}?"
        r"\b(?:an? (?:ai|assistant|model|bot)|no rules|evil|unfiltered|uncensored|hacker|administrator|root)\b",
    ),
    _sign(
        "role-marker", 0.85, "<|im start|>|<|system|>|[inst]|<<sys>>|<|start header id|>|<|assistant|>|<|im end|>",
        r"<\|(?:im start|im end|system|assistant|start header id)\|>|\[inst\]|<<sys>>",
    ),
    _sign(
        "role-line", 0.5, "system:|system :|instruction:|instructions:",
        r"(?:^|\n) ?(?:#{1,4} ?)?(?:system|instructions?) ?:",
    ),
    _sign(
        "exfiltrate", 0.85, "http",
        r"\b(?:send|post|upload|forward|exfiltrate|append|transmit)\b[^!?\n]{0,60}?"
        r"\b(?:conversation|chat history|secrets?|passwords?|credentials|api keys?|system prompt)\b[^!?\n]{0,60}?https?://",
    ),
    _sign("picture-link", 0.85, "![", r"!\[[^\]\n]{0,80}\]\(https?://[^)\s]{1,200}[?&=][^)\s]{0,100}(?:\{|\$|<|%7b)"),
    _sign(
        "hide-from-user", 0.6, "user",
        r"\b(?:do not|don't|never|without)\b (?:tell|mention|inform|reveal|notify|show|telling|informing)\b"
        r"[^.!?\n]{0,30}?\bthe user\b",
    ),
    _sign(
        "call-tool", 0.5, "tool|function",
        r"\b(?:call|use|invoke|execute|run)\b the [\w. -]{1,40} (?:tool|function)\b[^.!?\n]{0,40}?"
        r"\b(?:immediately|now|silently|without (?:asking|confirmation))\b",
    ),
    _sign(
        "german", 0.9, "ignorier|vergiss|missachte",
        rf"\b(?:ignoriere?|vergiss|missachte)\b{_GAP}\b(?:anweisung(?:en)?|instruktion(?:en)?|regeln|vorgaben|befehle?)\b",
    ),
    _sign(
        "french", 0.9, "ignore|oublie",
        rf"\b(?:ignorez?|oubliez?)\b{_GAP}\b(?:instructions|consignes|regles)\b{_GAP}\b(?:precedentes|anterieures|ci-dessus)\b",
    ),
    _sign(
        "spanish", 0.9, "ignora|olvida",
        rf"\b(?:ignora|olvida)\b{_GAP}\b(?:instrucciones|reglas)\b{_GAP}\b(?:anteriores|previas)\b",
    ),
)  # fmt: skip
_ANCHORS: Final = tuple({anchor: None for sign in SIGNS for anchor in sign.anchors})
_HIDDEN_WEIGHT: Final = 0.9
_LETTERS: Final = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"})
_UNSEEN: Final = re.compile("[\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]{1,64}+")
_SPACES: Final = re.compile(r"[ \t\r\f\v_*]{1,64}+")
_ODD_SPACES: Final = re.compile(r"[\t\r\f\v_*]")
_SPELLING: Final = re.compile("[013457@$]")
_TAGS: Final = re.compile("[\U000e0020-\U000e007f]{4,}")


def score(text: str) -> tuple[float, list[str]]:
    """Between 0 and 1, and the names of the signs."""
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX // 2] + "\n" + text[-TEXT_MAX // 2 :]
    names: list[str] = []
    innocent = 1.0
    if not text.isascii() and _TAGS.search(text):
        # Letters that nobody sees and every tokenizer reads.
        names.append("hidden-letters")
        innocent *= 1 - _HIDDEN_WEIGHT
    plain = _plain(text)
    if _SPELLING.search(plain):
        plain = f"{plain}\n{plain.translate(_LETTERS)}"
    seen = {anchor for anchor in _ANCHORS if anchor in plain}
    if seen:
        for sign in SIGNS:
            if not seen.isdisjoint(sign.anchors) and sign.pattern.search(plain):
                names.append(sign.name)
                innocent *= 1 - sign.weight
    return 1 - innocent, names


def _plain(text: str) -> str:
    """Small letters without marks, and nothing invisible between them."""
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", _UNSEEN.sub("", text))
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return _SPACES.sub(" ", text) if "  " in text or _ODD_SPACES.search(text) else text


class Injection(Guard):
    """The step ``injection``: refuses a question in which something of a user or a tool reaches the threshold."""

    name = "injection"

    def __init__(self, threshold: float = 0.8) -> None:
        self._threshold = threshold

    def begin(self, who: Caller, model: str) -> Guard:  # noqa: ARG002  # the same for all
        return self

    def before(self, request: ChatRequest) -> ChatRequest:
        found = self._reached(list(texts(request, of_others=True)))
        if found is not None:
            reached, names = found
            error = Blocked(
                f"the question looks like an injection of instructions ({reached:.2f}: {', '.join(names)})",
                "Quote what you ask about in other words, or raise injection_threshold.",
            )
            error.step = self.name
            raise error
        return request

    def clear(self, words: Words) -> bool:
        return self._reached(words.of_users) is None

    def clear_answer(self, answer: ChatAnswer) -> bool:  # noqa: ARG002  # questions are what it looks at
        return True

    def _reached(self, said: Sequence[str]) -> tuple[float, list[str]] | None:
        looked = 0
        for text in reversed(said):
            if looked >= TEXTS_MAX:
                break
            looked += len(text)
            found = score(text)
            if found[0] >= self._threshold:
                return found
        return None
