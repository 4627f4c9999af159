"""One-time tokens and sessions of the control API, in memory: a restart of the supervisor ends them.

A token is worth one session. Only hashes are kept, so a dump of this process gives nobody a way in.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from seamline.kernel.clock import Clock
from seamline.kernel.settings import AdminSettings
from seamline.run.roles import Caller, Role

_TOKENS_MAX = 64
_SESSIONS_MAX = 256
_FAILURES_MAX = 30
_WINDOW_S = 60.0


@dataclass(slots=True)
class _Session:
    number: str
    """What the audit calls it; opens nothing."""
    role: Role
    page: str
    """The hash of what a page must say beside the cookie."""
    began: float
    used: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has just begun. The secrets in it are told once."""

    number: str
    role: Role
    bearer: str
    page: str
    """What a page sends beside its cookie."""


class ApiSessions:
    """Keeps both."""

    def __init__(self, settings: AdminSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._tokens: dict[str, tuple[Role, float]] = {}
        self._sessions: dict[str, _Session] = {}
        self._failures: list[float] = []

    def new_token(self, role: Role = "admin") -> str:
        """A token for one session of that role, good for ``token_s``."""
        now = self._clock.monotonic()
        self._tokens = {each: found for each, found in self._tokens.items() if found[1] > now}
        while len(self._tokens) >= _TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        token = f"sla_{secrets.token_urlsafe(32)}"
        self._tokens[_hash(token)] = role, now + self._settings.token_s
        return token

    def open(self, token: str) -> Opened | None:
        """Take the token and begin a session; None if it is none, was used, or is too old."""
        now = self._clock.monotonic()
        found = self._tokens.pop(_hash(token), None)
        if found is None or found[1] <= now:
            self._failures = [at for at in self._failures if now - at < _WINDOW_S] + [now]
            return None
        self._sweep(now)
        while len(self._sessions) >= _SESSIONS_MAX:
            idlest = min(self._sessions, key=lambda each: self._sessions[each].used)
            del self._sessions[idlest]
        bearer, page, number = secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_hex(4)
        self._sessions[_hash(bearer)] = _Session(number, found[0], _hash(page), now, now)
        return Opened(number, found[0], bearer, page)

    @property
    def wait(self) -> bool:
        """Whether too many wrong tokens came in the last minute for another to be looked at."""
        now = self._clock.monotonic()
        return sum(now - at < _WINDOW_S for at in self._failures) >= _FAILURES_MAX

    def caller(self, bearer: str, page: str | None, peer: str) -> Caller | None:
        """Whose session that is. ``page`` is None where no cookie brought the bearer."""
        now = self._clock.monotonic()
        session = self._sessions.get(_hash(bearer))
        if session is None or self._over(session, now):
            return None
        if page is not None and not secrets.compare_digest(_hash(page), session.page):
            return None
        session.used = now
        return Caller(f"session {session.number}", session.role, peer)

    def close(self, bearer: str) -> None:
        self._sessions.pop(_hash(bearer), None)

    def _sweep(self, now: float) -> None:
        self._sessions = {each: found for each, found in self._sessions.items() if not self._over(found, now)}

    def _over(self, session: _Session, now: float) -> bool:
        settings = self._settings
        return now - session.used > settings.session_idle_s or now - session.began > settings.session_max_s


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
