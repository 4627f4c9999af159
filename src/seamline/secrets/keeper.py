"""Answers for the secrets of an application: who may, what is remembered, what is written to the audit.

With a supervisor there is one, in its process; the workers ask over the control channel. A host that stands alone has
its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, cast

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import SecretsSettings
from seamline.kernel.signal import log
from seamline.module.errors import InvalidArgument, PermissionDenied
from seamline.secrets.errors import BackendDownError, LeaseEndedError, SecretsError, UnknownSecretError
from seamline.secrets.interface import Backend, check_name
from seamline.secrets.postgresql import Logins
from seamline.secrets.secret import Secret, check_value

_log = log.get("seamline.secrets")
_KEPT_MAX: Final = 1000
_GIVEN_MAX: Final = 10_000
_LEASES_MAX: Final = 10_000
STRUCK_OUT: Final = "[secret]"
_SHORTEST: Final = 6
"""Shorter values are no secrets, and striking them out of lines would make the lines unreadable."""

Denial = Callable[[str, str, str], tuple[str, str] | None]
"""(module, ``secret`` or ``rotate``, name) to (fact, remedy), or None where the module may."""


class Recorder(Protocol):
    """Writes an audit line."""

    def __call__(
        self, decision: str, *, principal: str, action: str, resource: str = "", reason: str = "", **more: Any
    ) -> object: ...


@dataclass(slots=True)
class _Kept:
    secrets: list[Secret]
    at: float


@dataclass(slots=True)
class _Grant:
    name: str
    version: str
    module: str
    ends_ms: int


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """A module's wish to give a secret its next value."""

    module: str
    name: str
    every_s: float


class Keeper:
    """Keeps one application's secrets.

    Args:
        backend: what keeps the values.
        denial: the policy.
        record: writes an audit line.
        clock: of the process.
        settings: ``[secrets]``.
        logins: short-lived logins to PostgreSQL, where the settings ask for them.
    """

    def __init__(
        self,
        backend: Backend,
        denial: Denial,
        record: Recorder,
        clock: Clock,
        settings: SecretsSettings,
        logins: Logins | None = None,
    ) -> None:
        self.backend = backend
        self.on_change: list[Callable[[str], None]] = []
        """Called with the name of a secret that has another value, or is gone."""
        self._denial = denial
        self._record = record
        self._clock = clock
        self._settings = settings
        self._logins = logins
        self._kept: dict[str, _Kept] = {}
        self._reading: dict[str, asyncio.Lock] = {}
        self._grants: dict[str, _Grant] = {}
        # Who holds a lease ends with this process, so nothing of them is written down.
        self._numbers = itertools.count(1)
        self._plans: dict[tuple[str, str], RotationPlan] = {}
        self._given: dict[str, None] = {}

    async def close(self) -> None:
        if self._logins is not None:
            await self._logins.close()
        await asyncio.to_thread(self.backend.close)

    # What modules ask.

    async def answer(self, module: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        """One of ``get``, ``valid``, ``lease``, ``renew``, ``release``, ``put``, ``plan`` and ``login``, asked by a
        module whose identity is proven. Raises PermissionDenied, InvalidArgument or SecretsError.
        """
        operations: Mapping[str, Callable[..., Any]] = {
            "get": self.get,
            "valid": self.valid,
            "lease": self.lease,
            "renew": self.renew,
            "release": self.release,
            "put": self.put,
            "plan": self.plan,
            "login": self.login,
        }
        found = operations.get(operation)
        if found is None:
            raise InvalidArgument(f"there is no operation {operation!r} on secrets", f"Known: {', '.join(operations)}.")
        try:
            bound = found(module, **arguments)
        except TypeError as error:
            raise InvalidArgument(f"{operation!r} on secrets: {error}", "Give what it takes.") from None
        return await bound

    async def get(self, module: str, name: str, version: str = "") -> dict[str, Any]:
        self._check(module, "secret", name)
        found = await self._read(name, version)
        self._allowed(module, "secret", name, version=found.version)
        return self._as_json(found)

    async def valid(self, module: str, name: str) -> list[dict[str, Any]]:
        self._check(module, "secret", name)
        found = await self._valid(name)
        self._allowed(module, "secret", name, version=", ".join(each.version for each in found))
        return [self._as_json(each) for each in found]

    async def lease(self, module: str, name: str, seconds: float) -> dict[str, Any]:
        self._check(module, "secret", name)
        found = await self._read(name, "")
        lease = f"{name}#{next(self._numbers)}"
        now = self._now_ms()
        if len(self._grants) >= _LEASES_MAX:
            self._forget_ended(now)
        if len(self._grants) >= _LEASES_MAX:
            raise SecretsError(f"{_LEASES_MAX} leases run already", "Give them back: `async with secrets.lease(...)`.")
        ends_ms = now + round(self._bounded(seconds) * 1000)
        self._grants[lease] = _Grant(name, found.version, module, ends_ms)
        self._allowed(module, "secret", name, version=found.version, lease=lease)
        return {"lease": lease, "ends_ms": ends_ms, "secret": self._as_json(found)}

    async def renew(self, module: str, lease: str, seconds: float) -> int:
        grant = self._grants.get(lease)
        now = self._now_ms()
        if grant is None or grant.module != module or grant.ends_ms <= now:
            raise LeaseEndedError(f"there is no lease {lease!r}, or it has ended", "Take a new one.")
        self._check(module, "secret", grant.name)
        found = await self._read(grant.name, grant.version)
        ends_ms = now + round(self._bounded(seconds) * 1000)
        grant.ends_ms = min(ends_ms, found.until_ms) if found.until_ms else ends_ms
        self._allowed(module, "secret", grant.name, version=grant.version, lease=lease)
        return grant.ends_ms

    async def release(self, module: str, lease: str) -> None:
        grant = self._grants.get(lease)
        if grant is not None and grant.module == module:
            del self._grants[lease]

    async def put(self, module: str, name: str, value: str, after: str, overlap_s: float) -> str:
        """A rotation hook's new value."""
        self._check(module, "rotate", name)
        version = await self._write(
            name, base64.b64decode(value), after=after, overlap_s=overlap_s, by=f"module {module}"
        )
        self._allowed(module, "rotate", name, version=version)
        return version

    async def plan(self, module: str, name: str, every_s: float) -> None:
        self._check(module, "rotate", name)
        self._plans[module, name] = RotationPlan(module, name, every_s)

    async def login(self, module: str) -> dict[str, Any]:
        """A new login to the module's own schema."""
        if self._logins is None:
            raise SecretsError(
                "logins to the database are not made here", 'Write credentials = "dynamic" under [data].'
            )
        made = await self._logins.make(module)
        self._give(made.password)
        self._allowed(module, "login", made.user, kind="Login")
        return asdict(made)

    def _check(self, module: str, action: str, name: str) -> None:
        check_name(name)
        denial = self._denial(module, action, name)
        if denial is not None:
            fact, remedy = denial
            self._record(
                "deny", principal=module, action=action, resource=f'Secret::"{name}"', reason=fact, remedy=remedy
            )
            raise PermissionDenied(fact, remedy)

    def _allowed(self, principal: str, action: str, name: str, *, kind: str = "Secret", **more: Any) -> None:
        self._record("allow", principal=principal, action=action, resource=f'{kind}::"{name}"', **more)

    def _bounded(self, seconds: float) -> float:
        return min(seconds or self._settings.lease_s, self._settings.lease_s)

    # What people ask.

    async def set(self, who: str, name: str, value: bytes, overlap_s: float | None = None) -> str:
        """A new version; the one before it stays valid for ``overlap_s``, or as the settings say."""
        check_name(name)
        overlap_s = self._settings.overlap_s if overlap_s is None else overlap_s
        version = await self._write(name, value, after=None, overlap_s=overlap_s, by=who)
        self._allowed(who, "set", name, version=version)
        return version

    async def reveal(self, who: str, name: str, version: str = "") -> Secret:
        check_name(name)
        found = await self._call(self.backend.read, name, version, self._now_ms())
        self._remember_given(found)
        self._allowed(who, "reveal", name, version=found.version)
        return found

    async def delete(self, who: str, name: str) -> None:
        check_name(name)
        await self._call(self.backend.delete, name, self._now_ms())
        self._allowed(who, "delete", name)
        self._changed(name)

    async def facts(self) -> list[dict[str, Any]]:
        """Every secret: its versions without values, its leases, the wishes to rotate it."""
        now = self._now_ms()
        self._forget_ended(now)
        found = await self._call(self.backend.facts, now)
        return [
            {
                **asdict(each),
                "leases": [asdict(grant) for grant in self._grants.values() if grant.name == each.name],
                "rotation": next((asdict(plan) for plan in self._plans.values() if plan.name == each.name), None),
            }
            for each in found
        ]

    async def rotate_master(self, who: str) -> int:
        rotate = getattr(self.backend, "rotate_master", None)
        if rotate is None:
            raise SecretsError(
                f"the master key of {self.backend.label} is its own", "Rotate it with the backend's tools."
            )
        done = cast("int", await self._call(rotate))
        self._allowed(who, "rotate", "master", kind="Key", rewrapped=done)
        return done

    # What time asks.

    async def due(self) -> list[RotationPlan]:
        """The rotations whose time has come; meanwhile destroys what has ended."""
        now = self._now_ms()
        self._forget_ended(now)
        if self.backend.local:
            await self._call(getattr(self.backend, "destroy_ended"), now)  # noqa: B009  # only what is local has it
        if not self._plans:
            return []
        made = {each.name: each.versions[0] for each in await self._call(self.backend.facts, now) if each.versions}
        return [
            plan
            for plan in self._plans.values()
            if plan.every_s > 0
            and plan.name in made
            and not made[plan.name].gone
            and now - made[plan.name].made_ms >= plan.every_s * 1000
        ]

    async def sweep(self) -> None:
        """Drop the logins that have ended."""
        if self._logins is not None:
            await self._logins.sweep()

    def plan_of(self, name: str) -> RotationPlan | None:
        """Which module knows the next value of a secret."""
        return next((plan for plan in self._plans.values() if plan.name == name), None)

    def hide(self, text: str) -> str:
        """``text`` with every value that was given out struck out; for lines that somebody will read."""
        for value in self._given:
            if value in text:
                text = text.replace(value, STRUCK_OUT)
        return text

    # The backend, and what is remembered of it.

    async def _read(self, name: str, version: str) -> Secret:
        if version:
            found = await self._call(self.backend.read, name, version, self._now_ms())
            self._remember_given(found)
            return found
        return (await self._valid(name))[0]

    async def _valid(self, name: str) -> list[Secret]:
        if self.backend.local:
            return await self._fetch(name)
        kept = self._kept.get(name)
        if kept is not None and self._clock.monotonic() - kept.at < self._settings.cache_s:
            return kept.secrets
        async with self._reading.setdefault(name, asyncio.Lock()):
            kept = self._kept.get(name)
            if kept is not None and self._clock.monotonic() - kept.at < self._settings.cache_s:
                return kept.secrets
            try:
                found = await self._fetch(name)
            except BackendDownError as error:
                if kept is None or self._clock.monotonic() - kept.at >= self._settings.stale_s:
                    raise
                _log.warning("%s; the secret %r is given as it was %d s ago", error, name, self._age_s(kept))
                return kept.secrets
            except SecretsError:
                self._kept.pop(name, None)
                raise
            while len(self._kept) >= _KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[name] = _Kept(found, self._clock.monotonic())
        if kept is not None and kept.secrets[0].version != found[0].version:
            self._changed(name, keep=True)
        return found

    def _age_s(self, kept: _Kept) -> float:
        return self._clock.monotonic() - kept.at

    async def _fetch(self, name: str) -> list[Secret]:
        found = await self._call(self.backend.valid, name, self._now_ms())
        if not found or found[0].until_ms:
            raise UnknownSecretError(
                f"there is no secret {name!r}", f"Set it: `seamline secrets set {name}` reads the value from stdin."
            )
        for each in found:
            self._remember_given(each)
        return found

    async def _write(self, name: str, value: bytes, *, after: str | None, overlap_s: float, by: str) -> str:
        check_value(name, value)
        now = self._now_ms()
        self._forget_ended(now)
        held = [grant.ends_ms for grant in self._grants.values() if grant.name == name]
        until_ms = max([now + round(overlap_s * 1000), *held])
        version = cast(
            "str", await self._call(self.backend.write, name, value, after=after, until_ms=until_ms, now_ms=now, by=by)
        )
        self._changed(name)
        return version

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **named)

    def _changed(self, name: str, *, keep: bool = False) -> None:
        if not keep:
            self._kept.pop(name, None)
        for callback in self.on_change:
            callback(name)

    def forget(self) -> None:
        """Nothing is remembered any more: the policy, or whom it trusts, has changed."""
        for callback in self.on_change:
            callback("")

    def _forget_ended(self, now: int) -> None:
        self._grants = {lease: grant for lease, grant in self._grants.items() if grant.ends_ms > now}

    def _now_ms(self) -> int:
        return now_ms(self._clock)

    def _remember_given(self, secret: Secret) -> None:
        with contextlib.suppress(SeamlineError):
            text = secret.reveal().strip()
            # A key of many lines is printed line by line.
            for part in (text, *text.splitlines()):
                self._give(part)

    def _give(self, text: str) -> None:
        if len(text) < _SHORTEST:
            return
        self._given.pop(text, None)
        self._given[text] = None
        if len(self._given) > _GIVEN_MAX:
            del self._given[next(iter(self._given))]  # the oldest

    def _as_json(self, secret: Secret) -> dict[str, Any]:
        return {
            "name": secret.name,
            "version": secret.version,
            "value": base64.b64encode(secret.reveal_bytes()).decode(),
            "made_ms": secret.made_ms,
            "until_ms": secret.until_ms,
        }


def from_json(given: Mapping[str, Any]) -> Secret:
    """What a keeper answered, as the value that hides itself."""
    return Secret(
        given["name"],
        given["version"],
        base64.b64decode(given["value"]),
        made_ms=given["made_ms"],
        until_ms=given["until_ms"],
    )


class LocalSource:
    """The keeper of this very process."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def ask(self, module: str, operation: str, arguments: Mapping[str, Any]) -> Any:
        return await self._keeper.answer(module, operation, arguments)
