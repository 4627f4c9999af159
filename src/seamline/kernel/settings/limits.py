"""``[limits]``: how much one client may ask of the public side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.errors import BadValueError, WrongTypeError
from seamline.kernel.settings.tables import TableReader

Counted = Literal["address", "network", "route", "user", "key", "tenant"]
"""What has a limit of its own: an IPv4 address or /64, a /24 or /64, all requests together, a signed-in user (else the
address), an API key, a user's tenant."""
SHARED_BY = ("supervisor", "redis", "rediss", "postgresql+asyncpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """One entry of ``[limits] rates``: ``requests`` in each ``period_s`` for each of what ``by`` says."""

    name: str
    by: Counted
    requests: int
    period_s: float = 1
    burst: int = 0
    """How many may come at once; 0 is ``requests``."""
    path: str = "/"
    """Below which it holds."""
    methods: tuple[str, ...] = ()
    """Empty is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """One entry of ``[limits] quotas``: ``requests`` in each day or month (UTC), remembered over restarts."""

    name: str
    by: Counted
    requests: int
    period: Literal["day", "month"] = "day"
    path: str = "/"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """``[limits]``. A password in ``shared`` belongs in the environment (``SEAMLINE_LIMITS_SHARED``)."""

    connections_per_address_max: int = 512
    """Open at once from one IPv4 address or /64 of IPv6; this machine and trusted proxies are not counted. 0 is off."""
    shared: str = field(default="supervisor", repr=False)
    """Who adds up what several gateways count: ``supervisor``, or the url of Redis or PostgreSQL; empty is nobody."""
    rates: tuple[RateSettings, ...] = ()
    quotas: tuple[QuotaSettings, ...] = ()


def read_limits(reader: TableReader, table: dict[str, Any]) -> LimitsSettings:
    """``[limits]``, checked. Raises a SettingsError."""
    table = dict(table)
    rates = tuple(_entries(reader, table, "rates", RateSettings))
    quotas = tuple(_entries(reader, table, "quotas", QuotaSettings))
    limits = replace(reader.section(LimitsSettings, "limits", table, {"rates", "quotas"}), rates=rates, quotas=quotas)
    if limits.shared and (urlsplit(limits.shared).scheme or limits.shared) not in SHARED_BY:
        raise BadValueError(
            "shared names no store that is known",
            "Write supervisor, redis://..., rediss://... or postgresql+asyncpg://..., or nothing.",
            place=reader.place("limits", "shared"),
        )
    seen: set[str] = set()
    for each in (*rates, *quotas):
        section = "limits.rates" if isinstance(each, RateSettings) else "limits.quotas"
        if not each.name.replace("-", "").replace("_", "").isalnum() or not each.name.isascii() or each.name in seen:
            raise BadValueError(
                f"name is {each.name!r}",
                "Clients are told it: letters, digits, '-' and '_', and each once.",
                place=reader.place(section, "name"),
            )
        seen.add(each.name)
        if each.requests < 1 or (isinstance(each, RateSettings) and each.period_s <= 0):
            raise BadValueError(
                f"{each.name!r} lets nothing through", "At least one request in some time.", place=reader.place(section)
            )
        if not each.path.startswith("/") or (each.path != "/" and each.path.endswith("/")):
            raise BadValueError(
                f"path is {each.path!r}",
                "Begin it with '/' and do not end it with one.",
                place=reader.place(section, "path"),
            )
    return limits


def _entries(reader: TableReader, table: dict[str, Any], key: str, kind: Callable[..., Any]) -> list[Any]:
    found = table.pop(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in cast("list[Any]", found)):
        raise WrongTypeError(
            f"{key} is {found!r}", f"Write [[limits.{key}]] tables.", place=reader.place("limits", key)
        )
    return [
        kind(**reader.values(cast("type", kind), f"limits.{key}", each, overrides=False))
        for each in cast("list[dict[str, Any]]", found)
    ]
