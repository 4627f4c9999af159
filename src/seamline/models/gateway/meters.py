"""What is counted for one call: meters, and which of them a caller's calls count on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from seamline.kernel.settings.ai_gateway import AiBudgetSettings
from seamline.models.gateway.keys import Caller
from seamline.models.gateway.ledger import Line
from seamline.models.gateway.prices import Cost, nano
from seamline.models.gateway.quota import Limit, Unit

IDLE_S = 1.0
"""A slice that nobody took from for so long is given back."""


class Meter:
    """One limit for one of those it holds for, in one window."""

    __slots__ = (
        "ahead", "begins", "ends", "free", "full", "full_free", "granted", "groups", "held_off", "limit", "name",
        "spent", "tight", "used", "used_s",
    )  # fmt: skip

    def __init__(self, name: str, limit: Limit | None, begins: int, ends: int) -> None:
        self.name = name
        self.limit = limit
        self.begins = begins
        self.ends = ends
        self.free = 0 if limit else 1 << 62
        self.granted = 0
        """The slice: free, reserved, and spent since the ledger was told."""
        self.groups = 0
        """That have it."""
        self.spent = 0
        self.ahead = 0
        """To be lent beyond what is wanted."""
        self.used = 0
        """By all processes, when the ledger was asked last."""
        self.used_s = 0.0
        self.full = 0
        """An amount that there was no room for; what needs as much is refused until ``held_off``, while there is no
        more free than ``full_free``."""
        self.full_free = 0
        self.held_off = 0.0
        self.tight = False
        """Others are short of it, or all soon will be."""


class Group:
    """The meters of one caller and model, in the windows of one time."""

    __slots__ = (
        "begins", "calls", "counts_answers", "dirty", "ends", "known", "meters", "money", "number", "requests",
        "tokens",
    )  # fmt: skip

    def __init__(self, number: int, meters: Sequence[tuple[Unit, Meter]]) -> None:
        self.number = number
        self.meters = meters
        self.tokens = tuple(meter for unit, meter in meters if unit == "tokens")
        self.money = tuple(meter for unit, meter in meters if unit == "money")
        self.requests = tuple(meter for unit, meter in meters if unit == "requests")
        self.counts_answers = any(unit != "requests" and meter.limit is not None for unit, meter in meters)
        """What is used is limited, and not only how often."""
        self.begins = max(meter.begins for _, meter in meters) * 1000
        self.ends = min(meter.ends for _, meter in meters) * 1000
        self.calls = 0
        """Under way, or waiting to be."""
        self.known = False
        """To the ledger."""
        self.dirty = False
        """Something was spent that the ledger was not told."""

    def to_json(self) -> str:
        return json.dumps([(meter.name, meter.begins) for _, meter in self.meters])


def limits_for(who: Caller, model: str, limits: Sequence[Limit]) -> Iterable[tuple[Limit, str]]:
    """Of ``limits`` and the key's own, those that hold for a call, and the account of each: ``user:ann``."""
    key = who.key
    values = {
        "key": key.id, "user": who.user, "tenant": who.tenant, "team": key.team, "agent": who.agent, "all": "",
    }  # fmt: skip
    for limit in (*limits, *key.limits):
        value = values[limit.by]
        whose = (value, key.name) if limit.by == "key" else (value,)
        holds = limit.of in whose if limit.of else bool(value) or limit.by == "all"
        if holds and (not limit.models or model in limit.models):
            yield limit, f"{limit.by}:{value}"


def limits_of(settings: Sequence[AiBudgetSettings]) -> tuple[Limit, ...]:
    """``[[ai_gateway.budgets]]`` as limits. Money is meant as the shortest decimal that it was written with."""
    found: list[Limit] = []
    for each in settings:
        amounts: tuple[tuple[Unit, int], ...] = (
            ("tokens", each.tokens), ("money", nano(str(each.money))), ("requests", each.requests),
        )  # fmt: skip
        for unit, most in amounts:
            if most:
                found.append(
                    Limit(name=each.name, by=each.by, unit=unit, most=most, per=each.period, models=each.models)
                )
    return tuple(found)


def line_of(meter: Meter, now_s: float, *, wanted: bool) -> Line:
    """What is to be said of it to the ledger. What it has to give goes along, and is nobody's until the ledger has
    answered; only where nobody waits and nobody is short of it, half of it stays for the calls of the meantime."""
    spent, meter.spent = meter.spent, 0
    if meter.limit is None:
        return Line(meter.name, meter.begins, -1, spent, 0, 0, 0, give=False)
    if spent:
        meter.used_s = now_s
    idle = not 0 <= now_s - meter.used_s < IDLE_S
    if idle:
        meter.ahead = 0
    free = meter.free if wanted or idle or meter.tight else meter.free - max(meter.free // 2, 0)
    reserved = meter.granted - free - spent
    meter.free -= free
    return Line(meter.name, meter.begins, meter.limit.most, spent, reserved, free, meter.ahead, give=idle)


def amount_of(unit: Unit, cost: Cost) -> int:
    return cost.tokens if unit == "tokens" else cost.nano if unit == "money" else 1
