"""Claims about somebody as a :class:`User`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from seamline.mesh.identity.revocation import DEVICE, PROVIDER_SESSION
from seamline.module.principal import User

_TEXT_MAX = 200
_ROLES_MAX = 100
_ATTRIBUTES = (
    *((name, name) for name in ("email_verified", "locale", "zoneinfo", "department", "organization")),
    # What a signal may say is no longer good.
    (DEVICE, "device_id"),
    (DEVICE, "device"),
    (PROVIDER_SESSION, "sid"),
)


def user_of(
    claims: Mapping[str, Any],
    *,
    roles_claim: str,
    tenant_claim: str,
    client: str = "",
    scopes: frozenset[str] | None = None,
    session: str = "",
    now: int = 0,
) -> User:
    """The user that verified claims speak of. What is longer or more than anybody needs is cut."""
    asked = claims.get("auth_time")
    return User(
        id=str(claims["sub"])[:_TEXT_MAX],
        issuer=str(claims.get("iss", "")),
        roles=frozenset(_texts(_found(claims, roles_claim))),
        tenant=_text(_found(claims, tenant_claim)),
        name=_text(claims.get("name")) or _text(claims.get("preferred_username")),
        email=_text(claims.get("email")),
        session=session,
        authenticated_at=int(asked) if isinstance(asked, int | float) else int(claims.get("iat", now)),
        level=_text(claims.get("acr")),
        client=client,
        scopes=scopes,
        attributes={
            name: value[:_TEXT_MAX] if isinstance(value, str) else value
            for name, claim in _ATTRIBUTES
            if isinstance(value := claims.get(claim), str | int | bool)
        },
    )


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """``scope`` (RFC 9068) or ``scp`` of an access token; empty when it has none."""
    given = claims.get("scope", claims.get("scp", ""))
    return frozenset(given.split() if isinstance(given, str) else _texts(given))


def _found(claims: Mapping[str, Any], path: str) -> Any:
    """``realm_access.roles`` may be a claim of that name, or lie deeper."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = cast("Mapping[str, Any]", found).get(part)
    return found


def _text(value: Any) -> str:
    return value[:_TEXT_MAX] if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value[:_TEXT_MAX]]
    if not isinstance(value, list | tuple):
        return []
    return [each[:_TEXT_MAX] for each in cast("Iterable[Any]", value) if isinstance(each, str)][:_ROLES_MAX]
