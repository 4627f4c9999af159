"""Who may ask the supervisor what: the roles of its control API.

A ``viewer`` looks, an ``operator`` changes how the application runs and mends what is stuck, an ``admin`` does all.
Whoever reaches the admin socket is the user the supervisor runs as, and an admin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")

_LOOKS: Final = frozenset(
    {
        "status",
        "endpoints",
        "top",
        "logs",
        "observed",
        "jwks",
        "identity",
        "audit-heads",
        "policies",
        "describe",
        "model_stats",
        "models",
    }
)
_CHANGES: Final = frozenset(
    {
        "switch", "scale", "restart", "policy", "events", "sagas", "incident", "drill", "try", "model_try",
        "model_promote", "model_weights", "model_shadow", "model_rollback", "model_evaluate",
        "model_replay",
    }
)  # fmt: skip
_LOOKS_OF_ROOMS: Final[Mapping[str, frozenset[str]]] = {
    "events": frozenset({"topics", "lag", "tail", "verify", "dead list", "dead show"}),
    "sagas": frozenset({"list", "show"}),
    "secrets": frozenset({"list"}),
    "drill": frozenset({"list", "watch"}),
}
"""``events tail`` and ``dead show`` print what events hold, ``sagas show`` what sagas were given: like the log, it is
business data, and a viewer sees it."""
_LOOKS_OF_FEW: Final = frozenset({"secrets", "drill"})
"""Rooms in which looking takes the role that changing takes."""


class Caller(NamedTuple):
    """Who asks an operation, as the audit names them."""

    name: str
    role: Role
    peer: str = ""


def looks_only(operation: str, request: Mapping[str, Any]) -> bool:
    """Whether nothing changes by it; then it is not written to the audit."""
    return operation in _LOOKS or request.get("operation") in _LOOKS_OF_ROOMS.get(operation, ())


def needed(operation: str, request: Mapping[str, Any]) -> Role:
    """The least role that may ask it. What nobody has thought of is for admins."""
    if operation in _LOOKS or (operation not in _LOOKS_OF_FEW and looks_only(operation, request)):
        return "viewer"
    if operation == "drill" and request.get("yes"):
        return "admin"  # yes, although others can reach the application
    return "operator" if operation in _CHANGES else "admin"


def suffices(role: Role, wanted: Role) -> bool:
    return ROLES.index(role) >= ROLES.index(wanted)
