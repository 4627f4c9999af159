"""The rules as Cedar policies: asked in this process, with versions, and replayed against what was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cedarpy

from boutique.decisions import Inputs, Verdict

RULES = Path(__file__).parent / "rules.cedar"

_decide = cast(
    "Callable[[Sequence[dict[str, Any]], cedarpy.PolicySet, cedarpy.Entities], list[cedarpy.AuthzResult]]",
    cedarpy.is_authorized_batch,  # pyright: ignore[reportUnknownMemberType]
)
_NOBODY = cast("Callable[[str], cedarpy.Entities]", cedarpy.Entities.from_json_str)("[]")  # pyright: ignore[reportUnknownMemberType]
_ACCEPT, _REVIEW = "accept", "review"


class RulesError(Exception):
    """The rules cannot be asked."""


class Rules:
    """Args: ``text`` is Cedar; ``version`` is made of it."""

    def __init__(self, text: str) -> None:
        parse = cast("Callable[[str], cedarpy.PolicySet]", cedarpy.PolicySet.from_str)  # pyright: ignore[reportUnknownMemberType]
        self._policies = parse(text)
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]

    @staticmethod
    def load() -> Rules:
        return Rules(RULES.read_text(encoding="utf-8"))

    def decide(self, shopper: str, inputs: Inputs, probability: float) -> tuple[Verdict, str]:
        """What is to be done, and the rules that say so. Raises RulesError."""
        context = {
            "score": int(probability * 1000),
            "worth": round(inputs.worth * 100),
            "pieces": int(inputs.pieces),
            "orders_1h": int(inputs.orders_1h),
            "failed_1h": int(inputs.failed_1h),
            "cards_1d": int(inputs.cards_1d),
            "countries_1d": int(inputs.countries_1d),
            "new_card": bool(inputs.new_card),
            "new_country": bool(inputs.new_country),
            "known_days": int(inputs.known_days),
        }
        asked = [
            {
                "principal": {"type": "Shopper", "id": shopper},
                "action": {"type": "Action", "id": action},
                "resource": {"type": "Order", "id": "asked"},
                "context": context,
            }
            for action in (_ACCEPT, _REVIEW)
        ]
        accept, review = _decide(asked, self._policies, _NOBODY)
        for each in (accept, review):
            if each.diagnostics.errors:
                raise RulesError("; ".join(str(error) for error in each.diagnostics.errors))
        if accept.allowed:
            return Verdict.ACCEPT, _named(accept)
        if review.allowed:
            return Verdict.REVIEW, _named(accept) or _named(review)
        return Verdict.REFUSE, _named(review) or "nothing permits it"


def _named(result: cedarpy.AuthzResult) -> str:
    names = cast("dict[str, str]", result.diagnostics.id_annotations_by_reason)  # pyright: ignore[reportUnknownMemberType]
    return "; ".join(sorted(names.values()))
