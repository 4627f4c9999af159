"""What was asked of which model, by whom, how long it took and what it cost: told, counted, never what was said.

By OpenTelemetry's conventions for generative AI (:mod:`seamline.kernel.signal.gen_ai`), and with what they have no
name for: the caller's key, tenant and agent, and the cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

from seamline.kernel.signal import here
from seamline.kernel.signal.gauges import GAUGES
from seamline.kernel.signal.gen_ai import GenAi, Operation, Series
from seamline.kernel.signal.measures import Measure
from seamline.kernel.signal.metrics import BUCKETS, bucket_of, quantile_ms
from seamline.kernel.signal.trace import Tracer
from seamline.models.chat import Usage
from seamline.models.gateway.keys import Caller, Key
from seamline.models.gateway.prices import NANO, Cost, money

ACCOUNTS_MAX: Final = 2_000
"""Callers and models told apart; what is more is added up under ``other``."""
_OTHER: Final = "other"


@dataclasses.dataclass(slots=True)
class Account:
    """Calls of one model by one key, since the gateway began."""

    model: str
    key: str
    tenant: str
    calls: int = 0
    failed: int = 0
    cached: int = 0
    """Answered without asking an engine."""
    asked_again: int = 0
    """Engines that were asked besides the one that answered."""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    nano: int = 0
    told_calls: int = 0
    told_nano: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model, "key": self.key, "tenant": self.tenant, "calls": self.calls, "failed": self.failed,
            "cached": self.cached, "asked_again": self.asked_again, "input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_input_tokens, "output_tokens": self.output_tokens,
            "cost": money(self.nano),
        }  # fmt: skip


class _Times:
    """How long answers of one model took, and until their first piece."""

    __slots__ = ("first", "took")

    def __init__(self) -> None:
        self.took = [0] * BUCKETS
        self.first = [0] * BUCKETS


_Whose = tuple[Key, str, str, Operation, str, str]
"""Key, tenant, model, operation, provider, and the model of the engine."""
_Row = tuple[Account, Series, _Times]
"""Where a call is counted."""


class Accounting:
    """Of one process. Its measures are told with the process's others."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._gen_ai = GenAi(tracer or Tracer(0.0))
        self._series: dict[tuple[str, str, str, str], Series] = {}
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._times: dict[str, _Times] = {}
        self._rows: dict[_Whose, _Row] = {}
        GAUGES.add(self)

    def done(
        self,
        who: Caller,
        model: str,
        *,
        operation: Operation,
        provider: str,
        engine_model: str,
        usage: Usage,
        cost: Cost,
        began: float,
        ended: float,
        first_at: float = 0.0,
        finish: str = "",
        failed: str = "",
        asked_again: int = 0,
        cached: bool = False,
    ) -> None:
        """A call is over, in whichever way.

        Args:
            model: the name that was asked for; ``engine_model`` is who answered.
            began: monotonic, as ``ended``, and ``first_at`` where the answer was streamed.
            failed: the error's code.
        """
        key, seconds = who.key, ended - began
        if cached:
            account = self._account(model, who)
            account.calls += 1
            account.cached += 1
            return
        row = self._rows.get((key, who.tenant, model, operation, provider, engine_model))
        account, series, times = row or self._row(who, model, operation, provider, engine_model)
        account.calls += 1
        account.input_tokens += usage.input_tokens
        account.cached_input_tokens += usage.cached_input_tokens
        account.output_tokens += usage.output_tokens
        account.nano += cost.nano
        account.asked_again += asked_again
        if failed:
            account.failed += 1
        first_s = first_at - began if first_at else 0.0
        series.done(
            seconds, failed, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, first_s=first_s
        )
        times.took[bucket_of(int(seconds * 1e6))] += 1
        if first_s:
            times.first[bucket_of(int(first_s * 1e6))] += 1
        call = here.call()
        if call is not None and call.origin is not None and (call.origin.sampled or failed):
            self._gen_ai.span(call, series, began, seconds, failed, _told(who, model, usage, cost, first_s, finish))

    def _row(self, who: Caller, model: str, operation: Operation, provider: str, engine_model: str) -> _Row:
        if len(self._rows) >= ACCOUNTS_MAX:
            self._rows.clear()
        row = (
            self._account(model, who),
            self._of(operation, provider, engine_model, who.key.module),
            self._times.setdefault(model, _Times()),
        )
        self._rows[who.key, who.tenant, model, operation, provider, engine_model] = row
        return row

    def _account(self, model: str, who: Caller) -> Account:
        name = model, who.key.id, who.tenant
        found = self._accounts.get(name)
        if found is None and len(self._accounts) >= ACCOUNTS_MAX:
            name = _OTHER, _OTHER, ""
            found = self._accounts.get(name)
        if found is None:
            found = self._accounts[name] = Account(name[0], name[1], name[2])
        return found

    def _of(self, operation: Operation, provider: str, model: str, module: str) -> Series:
        name = operation, provider, model, module
        found = self._series.get(name)
        if found is None and len(self._series) >= ACCOUNTS_MAX:
            name = operation, provider, _OTHER, ""
            found = self._series.get(name)
        if found is None:
            found = self._series[name] = self._gen_ai.series(name[0], provider=name[1], model=name[2], module=name[3])
        return found

    def take(self) -> Iterable[Measure]:
        """What was not told yet."""
        found = self._gen_ai.take()
        for account in self._accounts.values():
            if account.calls == account.told_calls:
                continue
            of_whom = {"gen_ai.request.model": account.model, "seamline.key": account.key}
            if account.tenant:
                of_whom["seamline.tenant"] = account.tenant
            calls, nano = account.calls - account.told_calls, account.nano - account.told_nano
            found.append(Measure("seamline.ai.calls", calls, "", "counter", "{call}", of_whom))
            if nano:
                found.append(Measure("seamline.ai.cost", nano / NANO, "", "counter", "{currency}", of_whom))
            account.told_calls, account.told_nano = account.calls, account.nano
        return found

    def stats(self) -> dict[str, Any]:
        """Since the gateway began, for people: each model, and each key's share of it."""
        models: dict[str, dict[str, Any]] = {}
        for model, times in self._times.items():
            accounts = [account for account in self._accounts.values() if account.model == model]
            calls, nano = sum(each.calls for each in accounts), sum(each.nano for each in accounts)
            models[model] = {
                "calls": calls,
                "failed": sum(each.failed for each in accounts),
                "cached": sum(each.cached for each in accounts),
                "input_tokens": sum(each.input_tokens for each in accounts),
                "output_tokens": sum(each.output_tokens for each in accounts),
                "cost": money(nano),
                "cost_per_answer": money(nano // calls) if calls else "0",
                "p50_ms": round(quantile_ms(times.took, 0.5), 2),
                "p95_ms": round(quantile_ms(times.took, 0.95), 2),
                "first_token_p50_ms": round(quantile_ms(times.first, 0.5), 2),
                "first_token_p95_ms": round(quantile_ms(times.first, 0.95), 2),
            }
        return {"models": models, "accounts": [account.to_json() for account in self._accounts.values()]}


def _told(who: Caller, model: str, usage: Usage, cost: Cost, first_s: float, finish: str) -> dict[str, Any]:
    told = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.response.finish_reasons": [finish] if finish else None,
        "seamline.model": model,
        "seamline.key": who.key.id,
        "seamline.tenant": who.tenant,
        "seamline.agent": who.agent,
        "seamline.cost": money(cost.nano) if cost.nano else "",
        "seamline.first_token_ms": round(first_s * 1000, 3),
    }
    return {name: value for name, value in told.items() if value}
