"""Who answers for a model's name: its targets, how well they do, and in which order they are asked."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

from seamline.kernel.settings.ai_gateway import Ability, AiModelSettings, AiTargetSettings
from seamline.mesh.limits import CircuitBreaker
from seamline.models.engine import LanguageEngine
from seamline.models.errors import EngineError
from seamline.models.gateway.prices import Price, nano

OPEN_S: Final = 2.0
"""How long a target that fails is left alone before one call tries it."""
_REST_MAX_S: Final = 60.0
_REMEMBERED: Final = 64
_RENEWED_EVERY: Final = 16


class Wants(NamedTuple):
    """What a call needs of whoever answers it."""

    abilities: frozenset[Ability]
    tokens: int = 0
    """Of question and answer, as far as that can be told before."""
    who: str = ""
    """Of whom the calls stay with one target, where that is asked for."""


class Usual:
    """How long something usually takes: the 95th percentile of the last few dozen, and their moving average."""

    __slots__ = ("_count", "_seen", "average_s", "p95_s")

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)
        self._count = 0
        self.average_s = 0.0
        self.p95_s = 0.0

    def add(self, seconds: float) -> None:
        self._seen.append(seconds)
        self._count += 1
        self.average_s = seconds if self._count == 1 else self.average_s + 0.1 * (seconds - self.average_s)
        if self._count < _RENEWED_EVERY or self._count % _RENEWED_EVERY == 0:
            ordered = sorted(self._seen)
            self.p95_s = ordered[math.ceil(0.95 * len(ordered)) - 1]


class Target:
    """An engine that answers for an alias, and what is known of it."""

    __slots__ = (
        "_breaker", "asked", "engine", "failed", "inflight", "model", "name", "price", "resting_until", "settings",
        "streams", "wholes",
    )  # fmt: skip

    def __init__(self, name: str, model: str, engine: LanguageEngine, settings: AiTargetSettings, price: Price) -> None:
        self.name = name
        self.model = model
        self.engine = engine
        self.settings = settings
        self.price = price
        self.inflight = 0
        self.asked = 0
        self.failed = 0
        self.resting_until = 0.0
        self.streams = Usual()
        """Until the first piece of a stream."""
        self.wholes = Usual()
        """Until a whole answer."""
        self._breaker = CircuitBreaker(0.5, 5, 10.0, OPEN_S)

    def begin(self, now: float) -> int | None:
        """A ticket for one call, or None where it may not be asked now."""
        if now < self.resting_until:
            return None
        ticket = self._breaker.admit(now)
        if ticket is not None:
            self.inflight += 1
            self.asked += 1
        return ticket

    def well(self, ticket: int, now: float) -> None:
        """It answered, or said no for a reason that is the caller's."""
        self.inflight -= 1
        self._breaker.record(ticket, now, ok=True)

    def ill(self, ticket: int, now: float, error: EngineError) -> None:
        """It did not answer."""
        self.inflight -= 1
        self.failed += 1
        if error.status == 429:
            self._breaker.forget(ticket)
            self.resting_until = now + min(error.retry_after_s or 1.0, _REST_MAX_S)
        else:
            self._breaker.record(ticket, now, ok=False)

    def forget(self, ticket: int) -> None:
        """Nobody waited for its answer."""
        self.inflight -= 1
        self._breaker.forget(ticket)

    def free_in_s(self, now: float) -> float:
        """Until it may be asked again; 0 is now."""
        opened = self._breaker.opened_at
        shut = 0.0 if opened is None else opened + OPEN_S - now
        return max(shut, self.resting_until - now, 0.0)


class Model:
    """An alias: what callers name."""

    def __init__(self, alias: str, settings: AiModelSettings, targets: list[Target]) -> None:
        self.alias = alias
        self.settings = settings
        self.targets = targets
        self._tiers = [
            [target for target in targets if target.settings.tier == tier]
            for tier in sorted({target.settings.tier for target in targets})
        ]
        self._picky = any(target.settings.able or target.settings.context_tokens for target in targets)
        self._weight = {target: target.settings.weight for target in targets}
        self._first = [(target, target.settings.weight) for target in self._tiers[0]]
        self._first_weight = sum(weight for _, weight in self._first)
        self._by_lot = settings.choose == "weight" and not settings.sticky
        self._dearest = max(targets, key=lambda target: (target.price.output, target.price.input)).price

    @property
    def price(self) -> Price:
        """The dearest target's: what is reserved before it is known who answers."""
        return self._dearest

    @property
    def picky(self) -> bool:
        """Whether some of its targets cannot do everything, so that what a call needs has to be known."""
        return self._picky

    def first(self, wants: Wants) -> Target | None:
        """The one to ask first, where that can be told without looking at what each can."""
        if self._picky:
            return None
        tier = self._tiers[0]
        if len(tier) == 1:
            return tier[0]
        if not self._by_lot:
            return self._choose(tier, wants)
        lot = self._first_weight * random.random()
        for target, weight in self._first:
            lot -= weight
            if lot < 0:
                return target
        return tier[-1]

    def in_order(self, wants: Wants) -> Iterator[Target]:
        """The targets that can, the one to ask first in front. Whether they are well is seen when they are asked."""
        for tier in self._tiers:
            left = [target for target in tier if _able(target, wants)] if self._picky else list(tier)
            while left:
                chosen = left[0] if len(left) == 1 else self._choose(left, wants)
                left.remove(chosen)
                yield chosen

    def _choose(self, left: list[Target], wants: Wants) -> Target:
        settings = self.settings
        if settings.choose == "price":
            return min(left, key=lambda target: (target.price.output, target.price.input))
        if settings.choose == "latency":
            # Who was never asked is asked, and otherwise the quickest, counting who waits there already.
            return min(left, key=lambda target: target.streams.average_s * (1 + target.inflight))
        weights = self._weight
        most = sum([weights[target] for target in left])
        lot = most * (_lot(wants.who) if settings.sticky and wants.who else random.random())
        for target in left:
            lot -= weights[target]
            if lot < 0:
                return target
        return left[-1]


def price_of(settings: AiTargetSettings, output_tokens_max: int = 0) -> Price:
    """What a target's calls cost."""

    def of(amount: float) -> int:
        return nano(str(amount))

    return Price(
        input=of(settings.input_price),
        cached_input=of(settings.cached_input_price or settings.input_price),
        cache_write=of(settings.cache_write_price or settings.input_price),
        output=of(settings.output_price),
        **({"output_tokens_max": output_tokens_max} if output_tokens_max else {}),
    )


def _able(target: Target, wants: Wants) -> bool:
    settings = target.settings
    if settings.able and not wants.abilities <= frozenset(settings.able):
        return False
    return not settings.context_tokens or wants.tokens <= settings.context_tokens


def _lot(who: str) -> float:
    return crc32(who.encode()) / 2**32
