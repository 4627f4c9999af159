"""``[policy]``: the words that policies may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """``[policy]``. The folder with the Cedar files is ``[app] policy``."""

    roles: tuple[str, ...] = ()
    """The roles that people have and policies name (``Role::"support"``)."""
    agents: tuple[str, ...] = ()
    """The agents that policies name (``Agent::"helper"``)."""
    user_attributes: Mapping[str, Literal["text", "number", "flag"]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """The application's own attributes of users, and what they are."""
