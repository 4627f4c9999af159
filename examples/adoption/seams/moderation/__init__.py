"""Moderation: is a text fit to print?"""

from __future__ import annotations

from reviews_before.moderation import Verdict

from seamline import Contract, readonly


class Moderation(Contract):
    @readonly
    async def assess(self, text: str) -> Verdict:
        """Weigh a text: from 0, harmless, to 100."""
