"""Secrets in one process: what its modules ask through, the hooks that make next values, the logins it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import SecretsSettings
from seamline.kernel.signal import log
from seamline.module.module import Module, Rotation
from seamline.module.wiring import Wiring
from seamline.secrets.errors import RotationError, UnknownSecretError
from seamline.secrets.interface import Source
from seamline.secrets.keeper import Keeper, LocalSource
from seamline.secrets.process import protect_memory
from seamline.secrets.secret import Secret
from seamline.secrets.secrets import Secrets

if TYPE_CHECKING:
    from sqlalchemy import URL

    from seamline.kernel.store import Database

_log = log.get("seamline.secrets")
_LOOK_S: Final = 30.0
_RETRY_S: Final = 5.0


class SecretsRuntime:
    """Lives as long as the host.

    Args:
        source: whom to ask.
        clock: of the process.
        settings: ``[secrets]``.
        keeper: the process's own, where it stands alone; it is closed with the runtime.
    """

    def __init__(self, source: Source, clock: Clock, settings: SecretsSettings, keeper: Keeper | None = None) -> None:
        self._source = source
        self._clock = clock
        self._settings = settings
        self._keeper = keeper
        self._secrets: dict[str, Secrets] = {}
        self._hooks: dict[str, tuple[str, Rotation, Wiring]] = {}
        self._owner = TaskOwner("secrets")
        protect_memory()
        if keeper is not None:
            keeper.on_change.append(self.wake)

    @classmethod
    def alone(cls, keeper: Keeper, clock: Clock, settings: SecretsSettings) -> SecretsRuntime:
        return cls(LocalSource(keeper), clock, settings, keeper)

    def secrets_of(self, module: str) -> Secrets:
        found = self._secrets.get(module)
        if found is None:
            found = self._secrets[module] = Secrets(module, self._source, self._clock, self._settings.cache_s)
        return found

    async def start(self, hosted: Mapping[str, tuple[Module, Wiring]]) -> None:
        """Make known what these modules can rotate; alone, also do it when its time has come."""
        for name, (module, wiring) in hosted.items():
            for rotation in module.rotations:
                self._hooks[rotation.secret] = (name, rotation, wiring)
                await self.secrets_of(name).plan(rotation.secret, rotation.every_s)
        if self._keeper is not None:
            self._owner.spawn(self._look(self._keeper), name="rotation of secrets")

    async def stop(self) -> None:
        await self._owner.stop()
        if self._keeper is not None:
            await self._keeper.close()

    def wake(self, name: str) -> None:
        """The secret has changed; an empty name means any."""
        for secrets in self._secrets.values():
            secrets.changed(name)

    async def _look(self, keeper: Keeper) -> None:
        while True:
            await self._clock.sleep(_LOOK_S)
            try:
                for plan in await keeper.due():
                    await self.rotate(plan.name)
            except SeamlineError as error:
                _log.error("%s", error)  # a fact, no traceback; tried again
            except Exception:
                _log.exception("a secret could not be rotated")

    # Rotation.

    async def admin(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """What the supervisor asks: ``rotate`` a secret by its hook."""
        if operation != "rotate":
            raise RotationError(f"there is no operation {operation!r} on the secrets of a process")
        return await self.rotate(str(arguments["name"]))

    async def rotate(self, name: str) -> str:
        """Have the module's function make the next value; the new version. Raises RotationError, PermissionDenied."""
        found = self._hooks.get(name)
        if found is None:
            raise RotationError(
                f"no module here knows the next value of {name!r}", "Write it with `@module.rotates(...)`."
            )
        module, rotation, wiring = found
        secrets = self.secrets_of(module)
        secrets.changed(name)
        try:
            current = await secrets.get(name)
        except UnknownSecretError:
            raise RotationError(
                f"the secret {name!r} has no first value, and its rotation begins with that",
                f"Set it: `seamline secrets set {name}`.",
            ) from None
        value = await rotation.function(current, **await wiring.arguments(rotation.function, skip=1))
        if isinstance(value, Secret):
            value = value.reveal_bytes()
        if not isinstance(value, str | bytes):
            raise RotationError(
                f"the rotation of {name!r} gave a {type(value).__name__}", "Return the next value as str or bytes."
            )
        fresh = value.encode() if isinstance(value, str) else value
        version = await secrets.replace(current, fresh, rotation.overlap_s)
        _log.info("the secret %s is at version %s, by its rotation", name, version)
        return version

    # Logins.

    async def log_in(self, module: str) -> tuple[URL, float]:
        """A new login to the module's database, and for how long it is valid."""
        from sqlalchemy import URL  # heavy, and only here with PostgreSQL

        made = await self._source.ask(module, "login", {})
        url = URL.create(
            "postgresql+asyncpg", made["user"], made["password"], made["host"], made["port"], made["database"]
        )
        return url, made["lifetime_s"]

    def keep_logged_in(self, database: Database, lifetime_s: float) -> None:
        """Give the database a new login at half of each one's life."""
        self._owner.spawn(self._renew(database, lifetime_s), name=f"login of {database.module}")

    async def _renew(self, database: Database, lifetime_s: float) -> None:
        while True:
            await self._clock.sleep(lifetime_s / 2)
            while True:
                try:
                    url, lifetime_s = await self.log_in(database.module)
                    await database.renew_login(url)
                    break
                except Exception as error:  # the login that it has is valid for as long again
                    _log.error("%s has no new login to its database yet: %s", database.module, error)
                    await self._clock.sleep(min(_RETRY_S, lifetime_s / 10))
