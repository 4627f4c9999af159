"""CAEP and RISC events in the words of :mod:`seamline.mesh.identity.revocation`, and back.

Subjects are those of RFC 9493 and the complex subjects of SSF 1.0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from seamline.mesh.identity.revocation import Kind, Revocation

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED = CAEP + "session-revoked"
CLAIMS_CHANGED = CAEP + "token-claims-change"
CREDENTIAL_CHANGED = CAEP + "credential-change"
ASSURANCE_CHANGED = CAEP + "assurance-level-change"
COMPLIANCE_CHANGED = CAEP + "device-compliance-change"
ACCOUNT_DISABLED = RISC + "account-disabled"
ACCOUNT_ENABLED = RISC + "account-enabled"
ACCOUNT_PURGED = RISC + "account-purged"
VERIFICATION = SSF + "verification"
STREAM_UPDATED = SSF + "stream-updated"
HEARD = (
    SESSION_REVOKED, CLAIMS_CHANGED, CREDENTIAL_CHANGED, ASSURANCE_CHANGED, COMPLIANCE_CHANGED, ACCOUNT_DISABLED,
    ACCOUNT_ENABLED, ACCOUNT_PURGED,
)  # fmt: skip
TOLD = (SESSION_REVOKED, CREDENTIAL_CHANGED, COMPLIANCE_CHANGED, ACCOUNT_DISABLED)

EVER = 1 << 53
"""Whenever they sign in."""
_ID_MAX = 500


class UnknownSubject(ValueError):
    """A subject that names nothing that could be revoked here."""


def revocations_of(
    event: str, payload: Mapping[str, Any], subject: Mapping[str, Any], issuer: str, about: Collection[str]
) -> list[Revocation]:
    """What an event of ``issuer``, who may speak of the users of ``about``, makes void.

    Raises UnknownSubject. Events that take nothing away (a higher assurance level) are no entries.
    """
    reason = event.rpartition("/")[2].replace("-", " ")
    moment = payload.get("event_timestamp")
    before = int(moment * 1000) if isinstance(moment, int | float) and 0 < moment < EVER / 1000 else 0
    parts = _parts(subject)
    user = [("user", name) for name in _users(parts.get("user"), issuer, about)]
    session = [("session", name) for name in _plain(parts.get("session"), issuer)]
    device = [("device", name) for name in _plain(parts.get("device"), "")]
    names, lifted = user or session, False
    if event == SESSION_REVOKED:
        names, before = session or user, 0 if session else before
    elif event == COMPLIANCE_CHANGED:
        names, lifted = device, payload.get("current_status") == "compliant"
    elif event == ASSURANCE_CHANGED and payload.get("change_direction") == "increase":
        return []
    elif event in (ACCOUNT_DISABLED, ACCOUNT_PURGED):
        names, before = user, EVER
    elif event == ACCOUNT_ENABLED:
        names, lifted = user, True
    if not names:
        raise UnknownSubject(f"{reason} about nothing that is known here")
    return [Revocation(cast("Kind", kind), name, before=before, reason=reason, lifted=lifted) for kind, name in names]


def event_of(entry: Revocation, now_s: int) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """Event, payload and subject that tell others of an entry; None for what is nobody else's business."""
    # When it was revoked, not when it is told: who hears it back from others shall know it again.
    moment = -(-entry.before // 1000) if 0 < entry.before < EVER else now_s
    payload: dict[str, Any] = {"event_timestamp": moment, "initiating_entity": "admin"}
    if entry.reason:
        payload["reason_admin"] = {"en": entry.reason}
    match entry.kind:
        case "session":
            return SESSION_REVOKED, payload, {"format": "complex", "session": _session(entry.id)}
        case "user":
            event = ACCOUNT_DISABLED if entry.before >= EVER else SESSION_REVOKED
            return event, payload, _user(entry.id)
        case "client":
            told = {**payload, "credential_type": "app", "change_type": "revoke"}
            return CREDENTIAL_CHANGED, told, {"format": "opaque", "id": entry.id}
        case "device":
            told = {**payload, "previous_status": "compliant", "current_status": "not-compliant"}
            return COMPLIANCE_CHANGED, told, {"format": "complex", "device": {"format": "opaque", "id": entry.id}}
        case _:
            return None


def _parts(subject: Mapping[str, Any]) -> dict[str, Any]:
    """A complex subject by its parts; a simple one is a user."""
    if subject.get("format") in (None, "complex"):
        return {key: value for key, value in subject.items() if isinstance(value, dict)}
    return {"user": subject}


def _users(subject: Any, issuer: str, about: Collection[str]) -> list[str]:
    if not isinstance(subject, dict):
        return []
    found = cast("dict[str, Any]", subject)
    match found.get("format"):
        case "iss_sub":
            if found.get("iss") not in about:
                raise UnknownSubject(f"{issuer} does not speak for {found.get('iss')!r}")
            return [f"{found['iss']}|{_text(found, 'sub')}"]
        case "opaque":
            return [f"{issuer}|{_text(found, 'id')}"]
        case "email":
            return [f"email:{_text(found, 'email').lower()}"]
        case "account":
            return [f"email:{_text(found, 'uri').removeprefix('acct:').lower()}"]
        case "aliases":
            every = cast("list[Any]", found.get("identifiers") or [])
            return [name for each in every[:10] for name in _users(each, issuer, about)]
        case _:
            return []


def _plain(subject: Any, issuer: str) -> list[str]:
    if not isinstance(subject, dict):
        return []
    found = cast("dict[str, Any]", subject)
    name = _text(found, {"opaque": "id", "iss_sub": "sub", "uri": "uri", "jwt_id": "jti"}.get(found.get("format", "")))
    return [f"{issuer}|{name}" if issuer else name]


def _text(subject: Mapping[str, Any], key: str | None) -> str:
    value = subject.get(key) if key else None
    if not isinstance(value, str) or not 0 < len(value) <= _ID_MAX:
        raise UnknownSubject(f"a subject of the format {subject.get('format')!r} names nothing")
    return value


def _session(name: str) -> dict[str, Any]:
    issuer, bar, identity = name.rpartition("|")
    return {"format": "iss_sub", "iss": issuer, "sub": identity} if bar else {"format": "opaque", "id": identity}


def _user(name: str) -> dict[str, Any]:
    if name.startswith("email:"):
        return {"format": "email", "email": name.removeprefix("email:")}
    issuer, bar, identity = name.rpartition("|")
    return {"format": "iss_sub", "iss": issuer, "sub": identity} if bar else {"format": "opaque", "id": name}
