"""Lines of audit as events of the Open Cybersecurity Schema Framework, version 1.3 (https://schema.ocsf.io).

    Authentication    3002  sign-ins, tokens, keys, peers at a door
    Account Change    3001  what was revoked of a user, session, client or device
    API Activity      6003  calls, secrets, policy, topology, acts of operators, limits, certificates

Each has the classification (``category_uid``, ``class_uid``, ``activity_id``, ``type_uid``), ``time`` in milliseconds,
``severity_id``, ``status_id``, ``actor`` and ``metadata``; the line as it is stands under ``unmapped``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

VERSION: Final = "1.3.0"
_AUTHENTICATION, _ACCOUNT, _API = 3002, 3001, 6003
_LOGON, _LOGOFF = 1, 2
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_ACCOUNT_DISABLE, _ACCOUNT_ENABLE = 5, 2
_NAMES: Final = {
    _AUTHENTICATION: "Authentication",
    _ACCOUNT: "Account Change",
    _API: "API Activity",
}
_SECRETS: Final = {"get": _READ, "lease": _READ, "set": _CREATE, "put": _CREATE, "rotate": _UPDATE, "delete": _DELETE}
_ACCOUNTS: Final = ("user ", "session ", "client ", "device ")


def event(entry: Mapping[str, Any], product_version: str) -> dict[str, Any]:
    """A line (``number``, ``time``, ``kind``, ...; ``log`` names its log) as an event."""
    class_uid, activity = _classified(entry)
    done = entry.get("decision") in {"allow", "revoke"}
    moment = int(datetime.fromisoformat(str(entry["time"])).timestamp() * 1000)
    found: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "class_name": _NAMES[class_uid],
        "type_uid": class_uid * 100 + activity,
        "time": moment,
        "severity_id": _severity(entry),
        "status_id": 1 if done else 2,
        "status": "Success" if done else "Failure",
        "status_detail": entry.get("reason", ""),
        "message": _message(entry),
        "count": entry.get("suppressed", 1),
        "metadata": {
            "version": VERSION,
            "product": {"name": "Seamline", "vendor_name": "Seamline", "version": product_version},
            "log_name": entry.get("log", ""),
            "sequence": entry.get("number", 0),
            "uid": entry.get("hash", ""),
            "original_time": entry["time"],
        },
        "unmapped": dict(entry),
    }
    who = _user(entry)
    source = _endpoint(str(entry.get("peer") or ""))
    if class_uid == _API:
        found["actor"] = {"user": who} if "user" in entry else {"app_name": who["name"]}
        found["api"] = {"operation": str(entry.get("action", "")), "service": {"name": str(entry.get("resource", ""))}}
        found["src_endpoint"] = source
    elif class_uid == _AUTHENTICATION:
        found |= {"user": who, "src_endpoint": source, "service": {"name": str(entry.get("resource", ""))}}
    else:
        kind, _, name = str(entry.get("resource", "")).partition(" ")
        found |= {"user": {"uid": name, "type_id": 0, "type": kind}, "actor": {"user": who}}
    return found


def _classified(entry: Mapping[str, Any]) -> tuple[int, int]:
    action, kind = str(entry.get("action", "")), entry.get("kind")
    if kind == "authentication":
        return _AUTHENTICATION, _LOGOFF if action in {"sign out", "end session"} else _LOGON
    if kind == "identity" and action == "connect":
        return _AUTHENTICATION, _LOGON
    if kind == "revocation" and str(entry.get("resource", "")).startswith(_ACCOUNTS):
        return _ACCOUNT, _ACCOUNT_ENABLE if entry.get("decision") == "allow" else _ACCOUNT_DISABLE
    if kind == "secret":
        return _API, _SECRETS.get(action, _OTHER)
    if kind in {"policy", "topology"}:
        return _API, _UPDATE
    if kind == "identity":
        return _API, _CREATE
    return _API, _OTHER


def _severity(entry: Mapping[str, Any]) -> int:
    if entry.get("kind") == "audit" and entry.get("decision") in {"fail", "refuse"}:
        return _HIGH
    match entry.get("decision"):
        case "deny" | "fail" | "revoke":
            return _LOW
        case "refuse":
            return _MEDIUM
        case _:
            return _INFORMATIONAL


def _user(entry: Mapping[str, Any]) -> dict[str, Any]:
    principal = str(entry.get("principal", ""))
    if "user" not in entry:
        return {"name": principal}
    return {"name": str(entry["user"]), "uid": str(entry["user"]), "domain": str(entry.get("issuer", ""))}


def _endpoint(peer: str) -> dict[str, Any]:
    host, _, port = peer.rpartition(":")
    if host and port.isdigit():
        return {"ip": host.strip("[]"), "port": int(port)}
    return {"name": peer} if peer else {"name": "unknown"}


def _message(entry: Mapping[str, Any]) -> str:
    said = " ".join(str(entry.get(name, "")) for name in ("principal", "action", "resource"))
    return f"{' '.join(said.split())}: {entry.get('decision', '')}"
