"""The rules of ``[limits]``, asked for each request: first by where it comes from, then by who sends it."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

from seamline.gateway.limits.addresses import host_of, network_of
from seamline.gateway.limits.gcra import KEYS_MAX, Meter
from seamline.gateway.limits.quotas import Quota, Quotas
from seamline.gateway.limits.sharing import Sharing
from seamline.kernel.clock import Clock
from seamline.kernel.settings import LimitsSettings, QuotaSettings, RateSettings
from seamline.kernel.wire.http1 import Header, HttpRefusal
from seamline.module.principal import User

_NAME_CHARACTERS_MAX = 400
_BEFORE = frozenset({"address", "network", "route"})


class Rate:
    """One rule, ready to be asked."""

    __slots__ = ("_below", "_methods", "_path", "meter", "name", "policy", "prefix", "settings")

    def __init__(self, settings: RateSettings, keys_max: int) -> None:
        self.settings = settings
        self.name = settings.name
        self.meter = Meter(settings.requests, settings.period_s, settings.burst, keys_max)
        self.policy = f'"{settings.name}";q={settings.requests};w={math.ceil(settings.period_s)}'.encode()
        self.prefix = f"{settings.name} "
        self._path, self._below = settings.path, settings.path.rstrip("/") + "/"
        self._methods = frozenset(settings.methods)

    def concerns(self, path: str, method: str) -> bool:
        return (path.startswith(self._below) or path == self._path) and (not self._methods or method in self._methods)


class Standing(NamedTuple):
    """How a client stands with the rule that it is nearest to breaking."""

    rate: Rate
    left_s: float

    def headers(self) -> list[Header]:
        """As in draft-ietf-httpapi-ratelimit-headers."""
        meter = self.rate.meter
        remaining = max(0, int(self.left_s / meter.interval_s + 1e-6))
        reset_s = math.ceil(meter.tolerance_s - self.left_s + meter.interval_s)
        return [
            (b"ratelimit-policy", self.rate.policy),
            (b"ratelimit", b'"%b";r=%d;t=%d' % (self.rate.name.encode(), remaining, reset_s)),
        ]


class Limiter:
    """Counts, and refuses with 429.

    Args:
        sharing: adds up what other gateways count; None counts here alone.
        quotas: of days and months; None has none.
    """

    def __init__(
        self,
        settings: LimitsSettings,
        clock: Clock,
        *,
        sharing: Sharing | None = None,
        quotas: Quotas | None = None,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._now = clock.monotonic
        self._sharing = sharing
        self.quotas = quotas
        rates = [Rate(each, keys_max) for each in settings.rates]
        self._before = [rate for rate in rates if rate.settings.by in _BEFORE]
        self._after = [rate for rate in rates if rate.settings.by not in _BEFORE]
        if sharing is not None:
            sharing.know({rate.prefix: rate.meter for rate in rates})

    async def open(self) -> None:
        if self._sharing is not None and (self._before or self._after):
            self._sharing.start()
        if self.quotas is not None:
            await self.quotas.open()

    async def close(self) -> None:
        if self._sharing is not None:
            await self._sharing.close()
        if self.quotas is not None:
            await self.quotas.close()

    def before(self, path: str, method: str, address: str) -> Standing | None:
        """Count a request by where it comes from and goes to. Raises HttpRefusal (429)."""
        return self._judge(self._before, path, method, address, None, "") if self._before else None

    def after(self, path: str, method: str, address: str, user: User | None, used: str) -> Standing | None:
        """Count it by who sends it; ``used`` is what they brought to prove it. Raises HttpRefusal (429)."""
        return self._judge(self._after, path, method, address, user, used) if self._after else None

    async def use_quota(self, path: str, method: str, address: str, user: User | None, used: str) -> None:
        """Count it in its day and month. Raises HttpRefusal (429)."""
        assert self.quotas is not None
        taken: list[tuple[Quota, str]] = []
        for quota in self.quotas.all:
            if quota.concerns(path, method):
                name = counted(quota.settings, address, user, used)
                if name is not None:
                    left_s = await self.quotas.over(quota, name)
                    if left_s is not None:
                        raise _too_many(left_s, [])
                    taken.append((quota, name))
        for quota, name in taken:
            self.quotas.use(quota, name)

    def _judge(
        self, rates: list[Rate], path: str, method: str, address: str, user: User | None, used: str
    ) -> Standing | None:
        now = self._now()
        tightest: Standing | None = None
        taken: list[tuple[Rate, str]] = []
        for rate in rates:
            if not rate.concerns(path, method):
                continue
            name = counted(rate.settings, address, user, used)
            if name is None:
                continue
            left_s = rate.meter.left_s(name, now)
            if left_s < 0:
                raise _too_many(-left_s, Standing(rate, left_s).headers())
            taken.append((rate, name))
            if tightest is None or left_s / rate.meter.interval_s < tightest.left_s / tightest.rate.meter.interval_s:
                tightest = Standing(rate, left_s)
        for rate, name in taken:
            rate.meter.spend(name, now)
            if self._sharing is not None:
                self._sharing.add(rate.prefix, name, rate.meter.interval_s)
        return tightest


def counted(settings: RateSettings | QuotaSettings, address: str, user: User | None, used: str) -> str | None:
    """The name that a request is counted under; None if the rule says nothing about it."""
    by = settings.by
    if by == "address":
        return host_of(address)
    if by == "network":
        return network_of(address)
    if by == "route":
        return ""
    if by == "user":
        return _storable(f"user {user.issuer} {user.id}") if user is not None else host_of(address)
    if user is None:
        return None
    if by == "key":
        return _storable(user.client) if used == "key" else None
    return _storable(user.tenant) or None


def _storable(name: str) -> str:
    """What somebody is called elsewhere, as every store takes it; what is strange or long by its digest."""
    if len(name) <= _NAME_CHARACTERS_MAX and name.isprintable():
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _too_many(wait_s: float, headers: list[Header]) -> HttpRefusal:
    after = (b"retry-after", b"%d" % max(1, math.ceil(wait_s)))
    return HttpRefusal(429, "resource_exhausted", "Too many requests. Try again later.", [after, *headers])
