"""Is a review fit to print? A few rules, each with a weight."""

from __future__ import annotations

import re
from dataclasses import dataclass

HOLD_FROM = 50

_LINK = re.compile(r"https?://|www\.", re.IGNORECASE)
_REPEATED = re.compile(r"(.)\1{5,}")
_SELLING = frozenset({"casino", "crypto", "discount", "giveaway", "viagra", "whatsapp"})
_RUDE = frozenset({"idiot", "idiots", "moron", "scum"})


@dataclass(frozen=True)
class Verdict:
    """``score`` runs from 0, harmless, to 100; ``reasons`` say what was found."""

    score: int
    reasons: tuple[str, ...]

    @property
    def held(self) -> bool:
        return self.score >= HOLD_FROM


def assess(text: str) -> Verdict:
    """Weigh a text by the rules."""
    words = set(re.findall(r"[a-z]+", text.casefold()))
    letters = [letter for letter in text if letter.isalpha()]
    shouting = len(letters) > 12 and sum(map(str.isupper, letters)) > 0.7 * len(letters)
    found = [
        (60, "it holds a link", bool(_LINK.search(text))),
        (40, "it sells something else", bool(words & _SELLING)),
        (70, "it is rude", bool(words & _RUDE)),
        (30, "it shouts", shouting),
        (30, "it repeats one letter", bool(_REPEATED.search(text))),
    ]
    return Verdict(
        score=min(100, sum(weight for weight, _, holds in found if holds)),
        reasons=tuple(reason for _, reason, holds in found if holds),
    )
