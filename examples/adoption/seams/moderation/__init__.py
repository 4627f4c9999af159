"""Moderation: is a text fit to print?"""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from reviews_before.moderation import Verdict

from seamline import Contract, readonly


class Moderation(Contract):
    @readonly
    async def assess(self, text: str) -> Verdict:
        """Weigh a text: from 0, harmless, to 100."""
        ...
