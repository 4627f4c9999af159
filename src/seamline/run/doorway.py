"""What the gateway of a host needs to know who is asking."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.settings import Settings
from seamline.mesh.identity.revocation import SIGNED_OUT, Revocation, Revocations
from seamline.module.principal import Subject, User
from seamline.run.placement import GATEWAY

if TYPE_CHECKING:
    from seamline.gateway.auth.door import Door
    from seamline.gateway.auth.records import Records
    from seamline.gateway.limits.limiter import Limiter
    from seamline.gateway.limits.sharing import Sharing, Store


def make_door(
    settings: Settings,
    data: Path,
    clock: Clock,
    audit: AuditLog,
    revocations: Revocations,
    supervisor: Store | None = None,
) -> Door | None:
    """The door of ``[auth]``; None when the application has none. ``supervisor`` is as in :func:`make_limiter`."""
    if not settings.auth.enabled:
        return None
    from seamline.gateway.auth.door import Door

    def refuses(user: User) -> str | None:
        return revocations.refuses(Subject(user)) if revocations.entries else None

    def ended(user: User) -> None:
        if revocations.knows("session", user.session):
            return  # another gateway of ours has said so, or somebody revoked it
        until = now_ms(clock) + settings.auth.session_max_s * 1000
        revocations.revoke([Revocation("session", user.session, reason=SIGNED_OUT, until=until)])

    return Door(
        settings.auth,
        app=settings.app.name,
        folder=settings.folder,
        identity=data / "identity",
        records=gateway_records(settings, data, clock),
        clock=clock,
        audit=partial(audit.write, "authentication"),
        refuses=refuses,
        on_ended=ended,
        revocations=revocations,
        sharing=_make_sharing(settings, clock, supervisor),
    )


def gateway_records(settings: Settings, data: Path, clock: Clock) -> Records:
    """What the gateways share, in a database of their own as a module's is."""
    from seamline.gateway.auth.records import Records
    from seamline.kernel.store import Database, sqlite_url

    return Records(Database(settings.data.url or sqlite_url(data, GATEWAY), GATEWAY), clock)


def make_limiter(settings: Settings, data: Path, clock: Clock, supervisor: Store | None) -> Limiter | None:
    """The rules of ``[limits]``; None without any. ``supervisor`` adds up for the gateways of this machine."""
    limits = settings.limits
    if not limits.rates and not limits.quotas:
        return None
    from seamline.gateway.limits.limiter import Limiter
    from seamline.gateway.limits.quotas import Quotas
    from seamline.kernel.store import Database, sqlite_url

    quotas = None
    if limits.quotas:
        quotas = Quotas(limits.quotas, Database(settings.data.url or sqlite_url(data, GATEWAY), GATEWAY), clock)
    return Limiter(limits, clock, sharing=_make_sharing(settings, clock, supervisor), quotas=quotas)


def _make_sharing(settings: Settings, clock: Clock, supervisor: Store | None) -> Sharing | None:
    """What adds up with the other gateways; None where this one counts alone."""
    shared = settings.limits.shared
    store = supervisor if shared == "supervisor" else None
    if shared.startswith("redis"):
        from seamline.gateway.limits.stores import RedisStore

        store = RedisStore(shared)
    elif shared.startswith("postgresql"):
        from seamline.gateway.limits.stores import PostgresqlStore
        from seamline.kernel.store import Database

        store = PostgresqlStore(Database(shared, GATEWAY))
    if store is None:
        return None
    from seamline.gateway.limits.sharing import Sharing

    return Sharing(store, clock)


def own_hosts(settings: Settings) -> list[str]:
    """The name that browsers know the gateway by, where it is said."""
    name = urlsplit(settings.auth.public_url).netloc
    return [name] if name else []
