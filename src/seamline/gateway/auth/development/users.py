"""Users in a TOML file, their passwords hashed with scrypt.

[users.ada]
password = "scrypt$32768$8$1$<salt>$<hash>"
name = "Ada Example"
email = "ada@example.com"
roles = ["support"]
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from seamline.gateway.auth.errors import UsersFileError
from seamline.gateway.auth.sealing import replace_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_KEYS = frozenset({"password", "name", "email", "roles", "tenant", "disabled"})
_N, _R, _P = 2**15, 8, 1
_MEMORY_MAX = 64 * 1024 * 1024
_PASSWORD_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class DevelopmentUser:
    id: str
    password: str
    name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    tenant: str = ""
    disabled: bool = False


class UsersFile:
    """The file, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = (0, 0)
        self._users: dict[str, DevelopmentUser] = {}
        self._before: Mapping[str, DevelopmentUser] = self._users

    def all(self) -> Mapping[str, DevelopmentUser]:
        """Raises UsersFileError."""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._seen:
                self._users = _read(self.path)
                self._seen = stamp
        except FileNotFoundError:
            raise UsersFileError(
                f"there is no file {str(self.path)!r}", "Make the first user with `seamline users add NAME`."
            ) from None
        except OSError as error:
            raise UsersFileError(f"{str(self.path)!r} cannot be read ({error})", "Make it readable.") from error
        return self._users

    def changes(self) -> list[str]:
        """Who has gone, may no more, or has other roles, another tenant or password, since this was asked before."""
        try:
            before, now = self._before, self.all()
        except UsersFileError:
            return []  # half written, or away for a moment; who signs in hears of it
        self._before = now
        if before is now:
            return []
        return [name for name, user in before.items() if _rights(user) != _rights(now.get(name))]

    def put(self, user: DevelopmentUser) -> None:
        """Add or replace a user. Comments in the file are not kept."""
        users = dict(self.all()) if self.path.exists() else {}
        self._write({**users, user.id: user})

    def remove(self, name: str) -> None:
        """Raises UsersFileError."""
        users = dict(self.all())
        if users.pop(name, None) is None:
            raise UsersFileError(f"there is no user {name!r}", f"Known: {', '.join(users) or 'none'}.")
        self._write(users)

    def _write(self, users: Mapping[str, DevelopmentUser]) -> None:
        replace_file(self.path, "\n".join(_entry(user) for user in users.values()).encode())


def _rights(user: DevelopmentUser | None) -> object:
    return (user.password, user.roles, user.tenant, user.disabled) if user is not None else None


def check_name(name: str) -> None:
    """Raises UsersFileError."""
    if not _NAME.fullmatch(name):
        raise UsersFileError(f"{name!r} cannot be a user's name", "Letters, digits and . _ @ + -, at most 100.")


def hashed(password: str) -> str:
    """For the file. Raises UsersFileError when it is too long."""
    if not 0 < len(password) <= _PASSWORD_CHARACTERS_MAX:
        raise UsersFileError("the password is empty or too long", f"At most {_PASSWORD_CHARACTERS_MAX} characters.")
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _N, _R, _P)
    return f"scrypt${_N}${_R}${_P}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches(password: str, stored: str) -> bool:
    """Whether it is the password; takes some 60 ms and 32 MB, also when there is nothing to compare with."""
    kind, _, rest = stored.partition("$")
    parts = rest.split("$")
    if kind != "scrypt" or len(parts) != 5 or len(password) > _PASSWORD_CHARACTERS_MAX:
        _scrypt("", b"nobody", _N, _R, _P)
        return False
    n, r, p = (int(part) for part in parts[:3])
    digest = _scrypt(password, base64.b64decode(parts[3]), n, r, p)
    return hmac.compare_digest(digest, base64.b64decode(parts[4]))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MEMORY_MAX, dklen=32)


def _read(path: Path) -> dict[str, DevelopmentUser]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsersFileError(f"it is not TOML: {error}", "Correct that line.", place=str(path)) from None
    users = tables.get("users", {})
    if not isinstance(users, dict) or set(tables) - {"users"}:
        raise UsersFileError("it holds more than users", "Write [users.<name>] tables only.", place=str(path))
    return {name: _user(name, entry, path) for name, entry in cast("dict[str, Any]", users).items()}


def _user(name: str, entry: Any, path: Path) -> DevelopmentUser:
    check_name(name)
    table = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    given: object = table.get("roles", [])
    roles = cast("list[str]", given) if isinstance(given, list) else cast("list[str]", [given])
    password, called, email, tenant = (table.get(key, "") for key in ("password", "name", "email", "tenant"))
    good = all(isinstance(each, str) for each in [password, called, email, tenant, *roles])
    if not table or set(table) - _KEYS or not good or not password.startswith("scrypt$"):
        raise UsersFileError(
            f"the user {name!r} cannot be read",
            f"A user has {', '.join(sorted(_KEYS))}; the password is made by `seamline users add`.",
            place=str(path),
        )
    disabled = table.get("disabled", False) is not False
    return DevelopmentUser(name, password, called, email, tuple(roles), tenant, disabled)


def _entry(user: DevelopmentUser) -> str:
    lines = [f"[users.{json.dumps(user.id)}]", f"password = {json.dumps(user.password)}"]
    texts = {"name": user.name, "email": user.email, "tenant": user.tenant}
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in texts.items() if value]
    if user.roles:
        lines.append(f"roles = {json.dumps(list(user.roles))}")
    if user.disabled:
        lines.append("disabled = true")
    return "\n".join(lines) + "\n"
