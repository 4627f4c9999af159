"""What is no longer good before its time: sessions, users, clients, devices, tokens, modules.

One instance for a process is asked on both sides of each call. While nothing changes an answer is one comparison of
numbers: the epoch at which a subject was last found good with the epoch now. A change cuts what is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from itertools import count
from typing import Literal

import msgspec

from seamline.kernel.clock import Clock, SystemClock, now_ms
from seamline.module.errors import Unauthenticated
from seamline.module.principal import Subject

Kind = Literal["session", "user", "client", "device", "module", "token"]

SIGNED_OUT = "signed out"
"""The reason of a session that its own user ended. What that user had set going, an order on its way as an event or a
saga, goes on; every other revocation stops it."""

_FORGET_MS = 30 * 86_400_000
_SWEEP_MS = 1000

DEVICE = "device"
"""The attribute of a user that names the device."""
PROVIDER_SESSION = "sid"
"""The attribute of a user that names the session at the provider; revoked as ``<issuer>|<sid>``."""


class Revocation(msgspec.Struct, frozen=True):
    """Everything of ``kind`` and ``id`` that was not issued after ``before`` is void.

    Times are milliseconds since the epoch. What counts for a session, a user, a client or a device is when the user
    signed in. ``before`` 0 is whenever issued; ``until`` 0 is for ever, else when the entry may be forgotten.
    """

    kind: Kind
    id: str
    before: int = 0
    reason: str = ""
    until: int = 0
    lifted: bool = False
    """It holds no longer, as when a quarantine is over."""

    def completed(self, now: int) -> Revocation:
        """With what it leaves open: who signs in again is good, and what ends by itself is forgotten in a month."""
        before = now if self.kind in ("user", "device") else 0
        until = now + _FORGET_MS if self.kind in ("session", "user", "device", "token") else 0
        return msgspec.structs.replace(self, before=self.before or before, until=self.until or until)


_epochs = count()
"""No two of a process are alike, whichever instance they are of."""


class Underway:
    """A piece of work that ends when the subject it is done for is revoked."""

    __slots__ = ("cut", "subject")

    def __init__(self, subject: Subject, cut: Callable[[str], None]) -> None:
        self.subject = subject
        self.cut = cut


class Revocations:
    """What this process knows to be revoked.

    ``epoch`` grows with each change. ``on_change`` are called after each, once what is under way has been cut.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.epoch = next(_epochs)
        self.on_change: list[Callable[[], None]] = []
        self.on_quarantine: list[Callable[[], None]] = []
        """Called when other modules than before are quarantined."""
        self.spread: Callable[[list[Revocation]], None] | None = None
        """Tells the other processes, through the supervisor."""
        self._clock = clock or SystemClock()
        self.modules: dict[str, Revocation] = {}
        """The modules that are quarantined, perhaps only until now."""
        self._entries: dict[tuple[str, str], Revocation] = {}
        self._unkept: dict[tuple[str, str], asyncio.Event] = {}
        self._next_sweep = 0
        self._under_way: set[Underway] = set()

    def apply(self, entries: Iterable[Revocation]) -> None:
        """Take new entries; of two about the same, what refuses more holds."""
        now = now_ms(self._clock)
        for entry in entries:
            key = (entry.kind, entry.id)
            known = self._entries.pop(key, None)
            if not entry.lifted:
                self._entries[key] = entry if known is None else stricter(known, entry)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_MS
            self._entries = {key: entry for key, entry in self._entries.items() if not entry.until or entry.until > now}
        self.epoch = next(_epochs)
        for each in list(self._under_way):
            reason = self.refuses(each.subject)
            if reason is not None:
                self._under_way.discard(each)
                each.cut(reason)
        modules = {name: entry for (kind, name), entry in self._entries.items() if kind == "module"}
        if modules != self.modules:
            self.modules = modules
            for tell in self.on_quarantine:
                tell()
        for tell in self.on_change:
            tell()

    def revoke(self, entries: Iterable[Revocation]) -> None:
        """Make entries hold here at once, and everywhere else as soon as the supervisor has heard of them."""
        new = [entry.completed(now_ms(self._clock)) for entry in entries]
        self.apply(new)
        if self.spread is not None:
            self.spread(new)

    async def revoke_and_wait(self, entries: Iterable[Revocation], timeout_s: float = 5.0) -> None:
        """As :meth:`revoke`; returns when they are kept for good. Raises TimeoutError."""
        new = list(entries)
        if self.spread is None:
            self.revoke(new)
            return
        waiting = [self._unkept.setdefault((each.kind, each.id), asyncio.Event()) for each in new]
        self.revoke(new)
        async with asyncio.timeout(timeout_s):
            for each in waiting:
                await each.wait()

    def kept(self, entries: Iterable[Revocation]) -> None:
        """The supervisor has written these down, and says so."""
        told = list(entries)
        self.apply(told)
        for each in told:
            waiting = self._unkept.pop((each.kind, each.id), None)
            if waiting is not None:
                waiting.set()

    def knows(self, kind: Kind, name: str) -> bool:
        """Whether there is an entry about just that."""
        return (kind, name) in self._entries

    @property
    def entries(self) -> tuple[Revocation, ...]:
        return tuple(self._entries.values())

    def refuses(self, subject: Subject) -> str | None:
        """Why nothing is done for ``subject`` any more; None when it is good."""
        if subject.checked == self.epoch:
            return None
        reason = self._reason(subject)
        if reason is None:
            subject.checked = self.epoch
        return reason

    def refuses_module(self, name: str) -> str | None:
        """Why the module may neither call nor be called; None when it is good."""
        entry = self.modules.get(name)
        if entry is None or (entry.until and entry.until <= now_ms(self._clock)):
            return None
        return entry.reason or "quarantined"

    def check(self, subject: Subject) -> None:
        """Raise Unauthenticated when ``subject`` is revoked."""
        reason = self.refuses(subject)
        if reason is not None:
            raise revoked(reason)

    def watch(self, subject: Subject, cut: Callable[[str], None]) -> Underway:
        """Call ``cut`` with the reason when ``subject`` is revoked, until :meth:`ended`."""
        each = Underway(subject, cut)
        self._under_way.add(each)
        return each

    def ended(self, each: Underway) -> None:
        self._under_way.discard(each)

    @contextmanager
    def bound(self, subject: Subject | None) -> Generator[None]:
        """What the current task does in this block ends when ``subject`` is revoked, with Unauthenticated."""
        if subject is None:
            yield
            return
        self.check(subject)
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        why: str | None = None

        def cut(reason: str) -> None:
            nonlocal why
            why = reason
            task.cancel()

        each = self.watch(subject, cut)
        try:
            yield
        except asyncio.CancelledError:
            if why is None or task.uncancel() > cancelling:
                raise
            raise revoked(why, started=True) from None
        except BaseException:
            if why is not None:
                task.uncancel()
            raise
        else:
            if why is not None:  # it ended by itself in the very moment
                task.uncancel()
        finally:
            self.ended(each)

    def _reason(self, subject: Subject) -> str | None:
        if not self._entries:
            return None
        now = now_ms(self._clock)
        user = subject.user
        issued = user.authenticated_at * 1000 if user is not None else 0
        for key in _names(subject):
            entry = self._entries.get(key)
            if entry is None or (entry.until and entry.until <= now) or (entry.before and issued > entry.before):
                continue
            if entry.kind == "session" and entry.reason == SIGNED_OUT and subject.via:
                continue
            return f"{entry.kind} {entry.id!r} {entry.reason or 'is revoked'}"
        return None


def revoked(reason: str, *, started: bool = False) -> Unauthenticated:
    """The error for what is asked in the name of a revoked subject."""
    error = Unauthenticated(f"the sign-in is no longer good: {reason}", "Sign in again.")
    error.started = started
    return error


def _names(subject: Subject) -> list[tuple[str, str]]:
    names = [("module", module) for module in subject.chain]
    user = subject.user
    if user is not None:
        names.append(("user", user.id))
        if user.issuer:
            names.append(("user", f"{user.issuer}|{user.id}"))
        if user.session:
            names.append(("session", user.session))
        if user.client:
            names.append(("client", user.client))
        if user.email:
            names.append(("user", f"email:{user.email.lower()}"))
        device = user.attributes.get(DEVICE)
        if device is not None:
            names.append(("device", str(device)))
        session = user.attributes.get(PROVIDER_SESSION)
        if session is not None:
            names.append(("session", f"{user.issuer}|{session}"))
    origin = subject
    while origin.token is None and origin.parent is not None:
        origin = origin.parent
    token = getattr(origin.token, "jti", "")
    if token:
        names.append(("token", token))
    return names


def stricter(one: Revocation, other: Revocation) -> Revocation:
    """Of two entries about the same, one that refuses what either refuses."""
    before = 0 if not one.before or not other.before else max(one.before, other.before)
    until = 0 if not one.until or not other.until else max(one.until, other.until)
    return Revocation(other.kind, other.id, before, other.reason or one.reason, until)
