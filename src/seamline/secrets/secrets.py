"""What a module asks for: secrets by name, as its policy permits."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.errors import SeamlineError
from seamline.secrets.errors import RotationError, UnknownSecretError
from seamline.secrets.interface import Source
from seamline.secrets.keeper import from_json
from seamline.secrets.lease import Lease
from seamline.secrets.secret import Secret


@dataclass(slots=True)
class _Known:
    secret: Secret
    until: float


class Secrets:
    """The secrets that a module may read, asked for by type: ``def __init__(self, secrets: Secrets)``.

    ::

        key = await secrets.get("stripe-key")               # a Secret; key.reveal() is the value
        for each in await secrets.valid("webhook-key"): ... # the newest, and those that it replaced a short time ago
        async with secrets.lease("ledger-key") as lease: ...
        async for key in secrets.watch("stripe-key"): ...   # now, and each time it is replaced

    Ask each time a secret is needed, and keep no copy: what was asked for lately is at hand, and what has changed is
    asked for anew. All raise PermissionDenied where policy says no, UnknownSecretError where there is nothing, and
    BackendDownError where the backend has not answered for too long.
    """

    def __init__(self, module: str, source: Source, clock: Clock, cache_s: float) -> None:
        self._module = module
        self._source = source
        self._clock = clock
        self._cache_s = cache_s
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Lock] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._turn = 0

    async def get(self, name: str, *, version: str = "") -> Secret:
        """The secret, at its newest version unless one is named."""
        if version:
            return from_json(await self._ask("get", name=name, version=version))
        known = self._known.get(name)
        if known is not None and self._clock.monotonic() < known.until:
            return known.secret
        async with self._asking.setdefault(name, asyncio.Lock()):
            known = self._known.get(name)
            if known is not None and self._clock.monotonic() < known.until:
                return known.secret
            turn = self._turn
            found = from_json(await self._ask("get", name=name))
            if turn == self._turn:  # else something changed while the answer was on its way
                self._known[name] = _Known(found, self._clock.monotonic() + self._cache_s)
            return found

    async def get_or_make(self, name: str, make: Callable[[], str]) -> Secret:
        """The secret; where there is none yet, ``make`` gives its first value, which needs the permit to rotate.

        Of several processes that find none at once, the first one's value counts. For what an application can draw by
        itself; what somebody else hands out belongs into ``seamline secrets set``.
        """
        try:
            return await self.get(name)
        except UnknownSecretError:
            with suppress(RotationError):  # somebody was faster
                await self._put(name, make().encode(), after="", overlap_s=0)
            return await self.get(name)

    async def valid(self, name: str) -> tuple[Secret, ...]:
        """Every version that is valid now, the newest first: what was signed with the one before it still proves."""
        return tuple(map(from_json, await self._ask("valid", name=name)))

    def lease(self, name: str, *, seconds: float = 0) -> Lease:
        """A version that stays valid while it is used, for at most ``lease_s`` of the settings."""
        return Lease(self, name, seconds)

    async def watch(self, name: str) -> AsyncGenerator[Secret]:
        """The secret as it is, and again each time it has a new version."""
        changed = asyncio.Event()
        self._watchers.setdefault(name, set()).add(changed)
        try:
            last = ""
            while True:
                changed.clear()
                secret = await self.get(name)
                if secret.version != last:
                    last = secret.version
                    yield secret
                    continue
                with suppress(TimeoutError):
                    # A backend of others does not tell: what changed there is seen when ours has grown old.
                    async with asyncio.timeout(self._cache_s):
                        await changed.wait()
        finally:
            self._watchers[name].discard(changed)

    # For the platform.

    def changed(self, name: str) -> None:
        """The secret, or any if the name is empty, must be asked for anew."""
        self._turn += 1
        if name:
            self._known.pop(name, None)
        else:
            self._known.clear()
        for watched, events in self._watchers.items():
            if not name or watched == name:
                for event in events:
                    event.set()

    async def take(self, name: str, seconds: float) -> tuple[str, int, Secret]:
        answer = await self._ask("lease", name=name, seconds=seconds)
        return answer["lease"], answer["ends_ms"], from_json(answer["secret"])

    async def renew(self, lease: str, seconds: float) -> int:
        return await self._ask("renew", lease=lease, seconds=seconds)

    async def give_back(self, lease: str) -> None:
        with suppress(SeamlineError):  # it ends by itself
            await self._ask("release", lease=lease)

    async def replace(self, after: Secret, value: bytes, overlap_s: float) -> str:
        """The next value of a rotation; fails if somebody else was faster."""
        return await self._put(after.name, value, after=after.version, overlap_s=overlap_s)

    async def plan(self, name: str, every_s: float) -> None:
        await self._ask("plan", name=name, every_s=every_s)

    def now_ms(self) -> int:
        return now_ms(self._clock)

    async def _put(self, name: str, value: bytes, *, after: str, overlap_s: float) -> str:
        encoded = base64.b64encode(value).decode()
        version: str = await self._ask("put", name=name, value=encoded, after=after, overlap_s=overlap_s)
        self.changed(name)
        return version

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        return await self._source.ask(self._module, operation, arguments)


SecretsOf = Callable[[str], Secrets]
