"""The AI gateway as a whole: made of settings, served on a socket, drained."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import AiGatewaySettings, AiModelSettings, AiTargetSettings, read_secret
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.wire.http1 import HttpLimits, HttpServer
from seamline.mesh.limits import RetryBudget
from seamline.models.engine import LanguageEngine
from seamline.models.errors import ModelError
from seamline.models.gateway.accounting import Accounting
from seamline.models.gateway.answers_cache import AnswersCache
from seamline.models.gateway.budgets import Budgets
from seamline.models.gateway.guardrails import Guardrail, Guardrails
from seamline.models.gateway.keys import Keys
from seamline.models.gateway.ledger import budgets_beside
from seamline.models.gateway.meters import limits_of
from seamline.models.gateway.pipeline import LanguageModels, Pipeline
from seamline.models.gateway.race import Watch
from seamline.models.gateway.server import Server
from seamline.models.gateway.targets import Model, Target, price_of
from seamline.models.gateway.till import Till
from seamline.models.remote.client import Patience
from seamline.models.remote.engines import engine_of

_PERIOD_S = 10.0


class AiGateway:
    """One door to language models, for the wires and for modules.

    Args:
        keys: who may ask from outside; without them nobody, unless the settings say ``open``.
        models_of_app: what targets ``module:<contract>`` are.
        guardrails: an application's own, after those that the settings name.
        tracer: who is told of spans.
    """

    def __init__(
        self,
        settings: AiGatewaySettings,
        *,
        keys: Keys | None = None,
        budgets: Budgets | None = None,
        models_of_app: Mapping[str, LanguageEngine] | None = None,
        guardrails: Sequence[Guardrail] = (),
        tracer: Tracer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock = clock or SystemClock()
        self._runners = Runners()
        self._budgets = budgets
        self._keys = keys
        self._engines: list[LanguageEngine] = []
        models = {alias: self._model(alias, each, models_of_app or {}) for alias, each in settings.models.items()}
        retries = RetryBudget(settings.retry_ratio, settings.retries_min / _PERIOD_S, clock.monotonic())
        self._watch = Watch(clock, self._runners, retries)
        self._accounting = Accounting(tracer)
        self._answers = AnswersCache(clock=clock)
        self._pipeline = Pipeline(
            models,
            self._watch,
            Till(clock, budgets, self._accounting),
            keys=keys,
            guardrails=Guardrails(settings, guardrails),
            answers=self._answers,
        )
        self._server = Server(
            self._pipeline,
            bytes_max=settings.body_bytes_max,
            answer_bytes_max=settings.answer_bytes_max,
            is_open=settings.open,
            tracer=tracer,
        )
        self._http = HttpServer(
            self._server.handle,
            # Who reads a body bounds it, and says so in the words of the client's wire.
            HttpLimits(body_bytes_max=sys.maxsize, connections_max=settings.connections_max),
            runners=self._runners,
            clock=clock,
        )
        self._listening: asyncio.Server | None = None
        self._started = False

    @staticmethod
    def open(
        settings: AiGatewaySettings,
        folder: Path,
        *,
        models_of_app: Mapping[str, LanguageEngine] | None = None,
        guardrails: Sequence[Guardrail] = (),
        tracer: Tracer | None = None,
        clock: Clock | None = None,
    ) -> AiGateway:
        """With its keys and budgets, which are in the data ``folder`` unless the settings say otherwise."""
        path = folder / settings.keys
        keys = Keys(path, clock=clock)
        budgets = Budgets(budgets_beside(path), limits_of(settings.budgets), clock=clock)
        return AiGateway(
            settings,
            keys=keys,
            budgets=budgets,
            models_of_app=models_of_app,
            guardrails=guardrails,
            tracer=tracer,
            clock=clock,
        )

    @property
    def models(self) -> Mapping[str, Model]:
        """By alias."""
        return self._pipeline.models

    @property
    def keys(self) -> Keys | None:
        """Who may ask from outside."""
        return self._keys

    def inside(self, module: str = "") -> LanguageModels:
        """The same models for a module; for whichever is at work when none is named."""
        return LanguageModels(self._pipeline, module)

    async def start(self) -> None:
        """Before the first call. A second time changes nothing."""
        if self._budgets is not None and not self._started:
            await self._budgets.start()
        self._started = True

    async def serve(self, listening: socket.socket) -> None:
        """Answer on a socket that listens already."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._http.protocol, sock=listening, backlog=1024)

    async def drain(self, timeout_s: float) -> bool:
        """Take no new connection and end those there are; False if some had to be cut off."""
        if self._listening is not None:
            self._listening.close()
        return await self._http.drain(timeout_s)

    async def close(self) -> None:
        """Cut off whoever is left, and settle."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        await self._http.close()
        self._watch.stop()
        await self._runners.stop()
        for engine in self._engines:
            await engine.close()
        if self._budgets is not None:
            await self._budgets.close()
        if self._keys is not None:
            self._keys.close()

    def stats(self) -> dict[str, Any]:
        """What goes on, for whoever looks after it."""
        now = self._clock.monotonic()
        return {
            **self._accounting.stats(),
            "in_flight": self._http.inflight,
            "connections": self._http.connections,
            "answers_kept": self._answers.stats(),
            "targets": {
                alias: {target.name: _stats(target, now) for target in model.targets}
                for alias, model in self.models.items()
            },
        }

    def _model(self, alias: str, settings: AiModelSettings, of_app: Mapping[str, LanguageEngine]) -> Model:
        targets: list[Target] = []
        for number, each in enumerate(settings.targets, 1):
            engine = self._engine(settings, each, of_app)
            name = f"{alias}/{number} ({each.model or alias})"
            price = price_of(each, settings.output_tokens_max)
            targets.append(Target(name, each.model or alias, engine, each, price))
        return Model(alias, settings, targets)

    def _engine(
        self, model: AiModelSettings, target: AiTargetSettings, of_app: Mapping[str, LanguageEngine]
    ) -> LanguageEngine:
        scheme, _, rest = target.engine.partition(":")
        if scheme == "module":
            found = of_app.get(rest)
            if found is None:
                known = ", ".join(sorted(of_app)) or "none"
                raise ModelError(f"no module answers for a language model {rest!r}", f"Known: {known}.")
            return found
        key = read_secret(target.key_variable) if target.key_variable else target.key
        patience = Patience(
            first_s=model.first_token_timeout_s, stall_s=model.stall_timeout_s, answer_s=model.timeout_s
        )
        engine = engine_of(
            target.engine,
            key=key,
            patience=patience,
            connections_max=target.connections_max,
            answer_bytes_max=self.settings.answer_bytes_max,
            tokens_field=target.bound,
            clock=self._clock,
        )
        self._engines.append(engine)
        return engine


def _stats(target: Target, now: float) -> dict[str, Any]:
    return {
        "asked": target.asked,
        "failed": target.failed,
        "in_flight": target.inflight,
        "first_s": round(target.streams.average_s, 4),
        "whole_s": round(target.wholes.average_s, 4),
        "free_in_s": round(target.free_in_s(now), 3),
    }
