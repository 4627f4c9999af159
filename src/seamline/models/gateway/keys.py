"""Virtual keys: what a caller of the AI gateway shows, and what it may do with it.

A key is 256 bits of chance, shown once when it is made; the store holds its SHA-256 and four of its letters. It is
found by that digest, so that how long a look-up takes tells nothing of a key. Every process sees what another one
made or revoked within a quarter of a second: it looks whether the file has changed when a key is asked for.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import threading
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.kernel.store.sqlite_file import connect
from seamline.models.gateway.errors import AiGatewayError, KeyRefused, NotAllowed
from seamline.models.gateway.quota import Limit, limit_from

PREFIX: Final = "sk-sl-"
LOOK_S: Final = 0.25
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, revision INTEGER NOT NULL, hint TEXT NOT NULL,
    made_ms INTEGER NOT NULL, made_by TEXT NOT NULL, revoked_ms INTEGER NOT NULL DEFAULT 0,
    revoked_by TEXT NOT NULL DEFAULT '', facts TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS keys_by_revision ON keys (revision);
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Key:
    """What a key may. Two that are read at different times are different: what was worked out of one is not for the
    other.

    Args:
        models: names it may ask for; empty is all.
        user: for whom its calls are, where the request must not say. So are ``tenant``, ``team``, ``agent``.
        expires_ms: since the epoch; zero is never.
    """

    id: str
    name: str = ""
    models: frozenset[str] = frozenset()
    user: str = ""
    tenant: str = ""
    team: str = ""
    agent: str = ""
    module: str = ""
    limits: tuple[Limit, ...] = ()
    expires_ms: int = 0
    made_ms: int = 0
    revoked_ms: int = 0
    hint: str = ""
    """Its last four letters."""

    def allow(self, model: str) -> None:
        """Raises NotAllowed."""
        if self.models and model not in self.models:
            raise NotAllowed(
                f"the key {self.name or self.id!r} may not ask the model {model!r}",
                f"It may ask {', '.join(sorted(self.models))}.",
            )


class Caller(NamedTuple):
    """Who asks: a key, and for whom, as far as the key leaves that to the request."""

    key: Key
    user: str = ""
    tenant: str = ""
    agent: str = ""


def caller(key: Key, user: str = "", tenant: str = "", agent: str = "") -> Caller:
    """What the key says goes before what the request says."""
    return Caller(key, key.user or user, key.tenant or tenant, key.agent or agent)


class Keys:
    """The keys of the file ``path``. Several processes may have it open."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._connection = connect(path, read_only=False)
        self._connection.execute("PRAGMA busy_timeout = 5000")
        self._connection.executescript(_TABLES)
        self._lock = threading.Lock()
        self._known: dict[bytes, Key] = {}
        self._revision = 0
        self._look_at = 0.0
        self._look()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # Asked for every call.

    def find(self, presented: bytes) -> Key | None:
        """The key, if it is known and good now."""
        if self._clock.monotonic() >= self._look_at:
            self._look()
        key = self._known.get(sha256(presented).digest())
        if key is None or key.revoked_ms or (key.expires_ms and now_ms(self._clock) >= key.expires_ms):
            return None
        return key

    def admit(self, presented: bytes) -> Key:
        """Raises KeyRefused, which says why."""
        key = self.find(presented)
        if key is not None:
            return key
        known = self._known.get(sha256(presented).digest())
        if known is None:
            fact = "the key is not known" if presented else "there is no key"
            raise KeyRefused(fact, "Send one that was made here: `Authorization: Bearer sk-sl-...`.")
        why = "was revoked" if known.revoked_ms else "has expired"
        raise KeyRefused(f"the key {known.name or known.id!r} {why}", "Ask for a new one.")

    # Made, listed and revoked by people.

    def make(
        self,
        name: str,
        *,
        by: str = "",
        models: Iterable[str] = (),
        limits: Sequence[Limit] = (),
        expires_ms: int = 0,
        user: str = "",
        tenant: str = "",
        team: str = "",
        agent: str = "",
    ) -> tuple[str, Key]:
        """The key's text, which nobody can be told again, and what it may."""
        text = PREFIX + secrets.token_urlsafe(32)
        key = Key(
            id=f"key-{secrets.token_hex(6)}", name=name, models=frozenset(models), user=user, tenant=tenant, team=team,
            agent=agent, limits=tuple(limits), expires_ms=expires_ms, made_ms=now_ms(self._clock), hint=text[-4:],
        )  # fmt: skip
        with self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO keys (id, digest, revision, hint, made_ms, made_by, facts)"
                " VALUES (?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM keys), ?, ?, ?, ?)",
                (key.id, _digest(text.encode()), key.hint, key.made_ms, by, json.dumps(_facts(key))),
            )
        self._look()
        return text, key

    def revoke(self, id: str, *, by: str = "") -> None:  # noqa: A002  # what it is
        """From now on it is refused, by this process at once and by all others within LOOK_S.

        Raises AiGatewayError if there is no such key here.
        """
        with self._lock, self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            changed = connection.execute(
                "UPDATE keys SET revoked_ms = ?, revoked_by = ?, revision = (SELECT max(revision) + 1 FROM keys)"
                " WHERE id = ? AND revoked_ms = 0",
                (now_ms(self._clock), by, id),
            ).rowcount
        if not changed:
            raise AiGatewayError(f"there is no key {id!r} to revoke", "`seamline models keys` lists them.")
        self._look()

    def list(self) -> list[Key]:
        """All there were, the newest first."""
        self._look()
        return sorted(self._known.values(), key=lambda key: -key.made_ms)

    def _look(self) -> None:
        """Read what has changed in the file."""
        self._look_at = self._clock.monotonic() + LOOK_S
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, digest, revision, hint, made_ms, revoked_ms, facts FROM keys WHERE revision > ?"
                " ORDER BY revision",
                (self._revision,),
            ).fetchall()
        for id, digest, revision, hint, made_ms, revoked_ms, facts in rows:  # noqa: A001
            self._known[digest] = _key(id, hint, made_ms, revoked_ms, json.loads(facts))
            self._revision = revision


def _digest(text: bytes) -> bytes:
    return sha256(text).digest()


def _facts(key: Key) -> dict[str, Any]:
    return {
        "name": key.name, "models": sorted(key.models), "user": key.user, "tenant": key.tenant, "team": key.team,
        "agent": key.agent, "expires_ms": key.expires_ms, "limits": [limit.to_json() for limit in key.limits],
    }  # fmt: skip


def _key(id: str, hint: str, made_ms: int, revoked_ms: int, facts: dict[str, Any]) -> Key:  # noqa: A002
    facts = {
        **facts,
        "models": frozenset(facts["models"]),
        "limits": tuple(limit_from(limit) for limit in facts["limits"]),
    }
    return Key(id=id, hint=hint, made_ms=made_ms, revoked_ms=revoked_ms, **facts)
