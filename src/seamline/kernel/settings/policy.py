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
    bundle_key: str = ""
    """A file with the PEM public key that bundles are signed with, below the application's folder or absolute; with
    one, policy comes from bundles and not from the folder."""
    decision_point: str = ""
    """The URL of an OPA rule that decides calls and public requests in place of the Cedar files."""
    decision_timeout_ms: int = 250
    decision_cache_s: float = 1
    """How long its answer to the same question holds, at least 0.1 s."""
    user_attributes: Mapping[str, Literal["text", "number", "flag"]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """The application's own attributes of users, and what they are."""
