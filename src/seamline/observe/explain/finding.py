"""What one look at the picture found against one module."""

from __future__ import annotations

from typing import Literal, NamedTuple

from seamline.observe.incidents import Evidence, SuspectKind


class Finding(NamedTuple):
    """``weight`` is how much it alone speaks for the module as the cause, 0 to 1."""

    module: str
    kind: SuspectKind
    weight: float
    text: str
    before: float | None = None
    after: float | None = None
    unit: str = ""
    method: str = ""
    link: str = ""
    other: str = ""
    """The other end, where it is about an edge: it speaks less if that one is at fault."""
    sign: Literal["", "exception", "call profile", "early return"] = ""
    """What kind of look found it, where the kind alone does not tell."""

    def as_evidence(self) -> Evidence:
        return Evidence(
            self.kind, self.text, self.before, self.after, self.unit, self.link, score=round(self.weight, 3)
        )


def milliseconds(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2f} ms"


def share(value: float) -> str:
    return f"{value * 100:.0f} %"
