"""The gateway's cookies by name: set, read, and kept from the apps behind it."""

from __future__ import annotations

from seamline.kernel.wire.http1_message import Header

COOKIE = "__Host-session"
MARK = f"{COOKIE}=".encode()
_SIGN_IN = "__Host-signin-"
_OURS = (MARK, _SIGN_IN.encode(), b"__Host-seamline-admin=")
"""The last is the control API's: cookies do not tell the ports of a machine apart."""
_ATTRIBUTES = "; Path=/; Secure; HttpOnly; SameSite=Lax"


def session_cookie(value: str, max_age_s: int) -> Header:
    return b"set-cookie", f"{COOKIE}={value}{_ATTRIBUTES}; Max-Age={max_age_s}".encode("ascii")


def sign_in_cookie(state: str, value: str, max_age_s: int) -> Header:
    """What a browser holds of a sign-in that it has begun; empty and with no age, the end of it."""
    return b"set-cookie", f"{sign_in_name(state)}={value}{_ATTRIBUTES}; Max-Age={max_age_s}".encode("ascii")


def sign_in_name(state: str) -> str:
    """Several tabs may sign in at once, each with a cookie of its own."""
    return f"{_SIGN_IN}{''.join(letter for letter in state[:10] if letter.isascii() and letter.isalnum())}"


def clear() -> Header:
    return session_cookie("", 0)


def session_value(cookie: bytes) -> bytes | None:
    """The session's value in a ``cookie`` header; None when there is none, or more than one."""
    if MARK not in cookie:
        return None
    found = [part[len(MARK) :] for piece in cookie.split(b";") if (part := piece.strip()).startswith(MARK)]
    return found[0] if len(found) == 1 else None


def cookie_value(cookie: bytes, name: str) -> str:
    mark = f"{name}=".encode()
    found = [part[len(mark) :] for piece in cookie.split(b";") if (part := piece.strip()).startswith(mark)]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def for_apps(cookie: bytes) -> bytes:
    """A ``cookie`` header without what is the gateway's alone."""
    pieces = [piece for piece in cookie.split(b";") if not piece.strip().startswith(_OURS)]
    return b";".join(pieces).strip()


def from_apps(headers: list[Header]) -> list[Header]:
    """An app's answer without cookies that only the gateway may set."""
    return [header for header in headers if header[0] != b"set-cookie" or not _is_ours(header[1])]


def _is_ours(line: bytes) -> bool:
    """By the name as browsers read it, without the space around it."""
    name = line.partition(b";")[0].partition(b"=")[0].strip()
    return (name + b"=").startswith(_OURS)
