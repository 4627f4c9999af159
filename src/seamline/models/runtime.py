"""The models of one process: every version of each contract, and which of them answers a call."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal.measures import Measure
from seamline.models.serving.cache import principal
from seamline.models.serving.engine import Engine
from seamline.models.serving.served import served
from seamline.models.serving.telling import Telling
from seamline.module.context import CURRENT, NO_DEADLINE, CallContext, current
from seamline.module.contract import compile_contract
from seamline.module.models import Artefacts, ModelType
from seamline.module.module import Module
from seamline.module.wiring import Wiring

_log = logging.getLogger("seamline.models")
_SHADOWS_MAX: Final = 32
"""Under way at once in a process; more are not made."""
_SHADOW_S: Final = 30.0

_shadow: ContextVar[bool] = ContextVar("seamline_shadow", default=False)


def is_shadow() -> bool:
    """Whether the call at work is made to compare versions only: nobody gets its answer, and it must change nothing.

    Known to models that run in threads or on the loop, in methods that are not batched.
    """
    return _shadow.get()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A call, as a route sees it. ``key`` is on whose behalf it is made, as :func:`principal` names them."""

    method: str
    arguments: tuple[Any, ...]
    key: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended.

    ``answer`` is None for a stream, of which ``items`` came, the first after ``first_s``. ``primary`` is there for a
    shadow call: the outcome of the call that it shadows.
    """

    seconds: float
    error: BaseException | None = None
    answer: Any = None
    first_s: float = 0.0
    items: int = 0
    primary: Outcome | None = None


class Passing(Protocol):
    """Looks at one stream."""

    def passed(self, item: Any) -> None: ...

    def ended(self) -> None:
        """It has come to its end; of one that nobody reads on, nothing is heard."""
        ...


class Watching(Protocol):
    """Looks at what one version is asked and answers. Called on the loop, and must not block."""

    def answered(self, method: str, arguments: tuple[Any, ...], answer: Any) -> None: ...

    def stream(self, method: str, arguments: tuple[Any, ...]) -> Passing: ...

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        ...

    async def close(self) -> None: ...


class Route(Protocol):
    """Which version answers. Asked for every call of a contract that has several; its methods must not block."""

    def choose(self, contract: str, call: Asked) -> str:
        """The version that answers; of one that does not exist, the first that was declared does."""
        ...

    def shadows(self, contract: str, call: Asked) -> Sequence[str]:
        """Versions that are asked, too, when the call has been answered. Their answers are given to ``finished``."""
        ...

    def finished(self, contract: str, version: str, call: Asked, outcome: Outcome) -> None:
        """A call has ended, or a shadow of one; see ``outcome.primary``."""
        ...


class First:
    """The first version that was declared answers everything."""

    def __init__(self, versions: Callable[[str], Sequence[str]]) -> None:
        self._versions = versions

    def choose(self, contract: str, call: Asked) -> str:  # noqa: ARG002  # the protocol's signature
        return self._versions(contract)[0]

    def shadows(self, contract: str, call: Asked) -> Sequence[str]:  # noqa: ARG002  # the protocol's signature
        return ()

    def finished(self, contract: str, version: str, call: Asked, outcome: Outcome) -> None:
        pass


class ModelsRuntime:
    """Loads the models of the modules that are hosted here, and asks them.

    Args:
        route: which version of a contract answers; the first when None.
        artefacts: the files of a model, None where it has none.
        clock: by which models are unloaded.
        watching: who looks at what a model is asked and answers, None where nobody does.
    """

    def __init__(
        self,
        *,
        route: Route | None = None,
        artefacts: Callable[[ModelType], Artefacts | None] | None = None,
        clock: Clock | None = None,
        watching: Callable[[ModelType, Module], Watching | None] | None = None,
    ) -> None:
        self.route: Route = route or First(self.versions)
        """May be replaced while it runs."""
        self._artefacts = artefacts or _no_files
        self._clock = clock or SystemClock()
        self._watching = watching or _nobody
        self._contracts: dict[str, Versions] = {}
        self._telling = Telling()

    async def open(self, models: Sequence[ModelType], wiring: Wiring) -> object:
        """The versions of one contract, loaded as they were declared; what provides the contract.

        Raises:
            ModelLoadError: one could not be loaded.
        """
        engines = [
            Engine(
                model if model.loads or place == 0 else dataclasses.replace(model, loads="first_call"),
                partial(wiring.build, model.cls),
                artefacts=self._artefacts(model),
                clock=self._clock,
            )
            for place, model in enumerate(models)
        ]
        contract = models[0].contract
        watched = {
            model.version: found for model in models if (found := self._watching(model, wiring.module)) is not None
        }
        versions = self._contracts[contract.__name__] = Versions(self, contract, engines, wiring.module.name, watched)
        await asyncio.gather(*(engine.start() for engine in engines))
        return served(contract, versions)

    def versions(self, contract: str) -> Sequence[str]:
        """Those of a contract, in the order in which they were declared; none where it is not hosted here."""
        found = self._contracts.get(contract)
        return () if found is None else tuple(found.engines)

    async def prepare(self, contract: str, version: str) -> None:
        """Load a version before it is asked. Raises ModelLoadError."""
        await self._contracts[contract].engines[version].ready()

    async def ask(self, contract: str, version: str, method: str, arguments: tuple[Any, ...], wait_s: float) -> Any:
        """The answer of one version, whatever the route says, and nothing is counted of it."""
        return await self._contracts[contract].engines[version].call(method, arguments, monotonic() + wait_s)

    def stats(self) -> dict[str, Any]:
        """By model; for JSON."""
        return {
            engine.model.name: engine.stats() | each.watched(engine)
            for each in self._contracts.values()
            for engine in each
        }

    def take_measures(self) -> list[Measure]:
        """What has grown since it was taken last."""
        return self._telling.take((each.module, engine) for each in self._contracts.values() for engine in each)

    def streamed(self, module: str, engine: Engine, seconds: float, first_s: float, items: int) -> None:
        """A stream has ended; the first of its items came after ``first_s``."""
        self._telling.streamed(module, engine, seconds, first_s, items)

    async def stop(self) -> None:
        for versions in self._contracts.values():
            await versions.stop()


class Versions:
    """The versions of one contract. See :class:`~seamline.models.serving.served.Answering`."""

    def __init__(
        self,
        runtime: ModelsRuntime,
        contract: type[Any],
        engines: Sequence[Engine],
        module: str,
        watching: Mapping[str, Watching],
    ) -> None:
        self.engines: Mapping[str, Engine] = {engine.model.version: engine for engine in engines}
        self.module = module
        self._runtime = runtime
        self._contract = contract.__name__
        self._specs = compile_contract(contract).methods
        self._first = engines[0]
        self._watching = watching
        self._owner = TaskOwner(f"shadow calls of {self._contract}")
        self._shadows = 0

    def __iter__(self) -> Iterator[Engine]:
        return iter(self.engines.values())

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if len(self.engines) == 1:
            answer = await self._first.call(method, arguments, _deadline())
            self._answered(self._first, method, arguments, answer)
            return answer
        route, asked = self._runtime.route, Asked(method, arguments, principal())
        engine = self._chosen(route, asked)
        began = monotonic()
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = await engine.call(method, arguments, _deadline())
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._ended(route, engine, asked, Outcome(seconds=monotonic() - began, error=error, answer=answer))
        self._answered(engine, method, arguments, answer)
        return answer

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        route, asked = self._runtime.route, Asked(method, arguments, principal())
        engine = self._first if len(self.engines) == 1 else self._chosen(route, asked)
        watching = self._watching.get(engine.model.version)
        passing = None if watching is None else watching.stream(method, arguments)
        began, first_s, items = monotonic(), 0.0, 0
        error: BaseException | None = None
        try:
            async with aclosing(engine.stream(method, arguments)) as stream:
                async for item in stream:
                    if not items:
                        first_s = monotonic() - began
                    items += 1
                    if passing is not None:
                        passing.passed(item)
                    yield item
            if passing is not None:
                self._look(engine, passing.ended)
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = monotonic() - began
            self._runtime.streamed(self.module, engine, seconds, first_s, items)
            if len(self.engines) > 1:
                outcome = Outcome(seconds=seconds, error=error, first_s=first_s, items=items)
                self._ended(route, engine, asked, outcome)

    async def stop(self) -> None:
        await self._owner.stop()
        for engine in self.engines.values():
            await engine.stop()
        for watching in self._watching.values():
            await watching.close()

    def watched(self, engine: Engine) -> dict[str, Any]:
        """What is told of a version's scores; for JSON."""
        watching = self._watching.get(engine.model.version)
        return {} if watching is None else {"watch": watching.stats()}

    def _answered(self, engine: Engine, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        watching = self._watching.get(engine.model.version)
        if watching is not None:
            self._look(engine, watching.answered, method, arguments, answer)

    def _look(self, engine: Engine, look: Callable[..., None], *what: Any) -> None:
        """At an answer, with functions of the application's: its caller gets it in any case."""
        try:
            look(*what)
        except Exception:
            _log.exception("an answer of %s could not be looked at", engine.model.name)

    def _chosen(self, route: Route, asked: Asked) -> Engine:
        try:
            return self.engines.get(route.choose(self._contract, asked), self._first)
        except Exception:
            _log.exception("no version of %s could be chosen; the first that was declared answers", self._contract)
            return self._first

    def _ended(self, route: Route, engine: Engine, asked: Asked, outcome: Outcome) -> None:
        """Tell the route, and ask the shadows: the call has been answered, and they can neither delay nor change it."""
        try:
            route.finished(self._contract, engine.model.version, asked, outcome)
            shadows = () if outcome.error is not None else route.shadows(self._contract, asked)
        except Exception:  # of comparing, or of counting, which the caller has not asked for
            _log.exception("the end of a call of %s could not be taken in", self._contract)
            return
        for version in shadows:
            shadow = self.engines.get(version)
            if shadow is None or shadow is engine:
                continue
            if self._shadows >= _SHADOWS_MAX or shadow.busy:
                continue
            self._shadows += 1
            self._owner.spawn(self._shadow(route, shadow, asked, outcome), name=f"shadow of {self._contract}")

    async def _shadow(self, route: Route, engine: Engine, asked: Asked, primary: Outcome) -> None:
        _shadow.set(True)
        call = current()
        if call is not None:  # without a key: it is not the call that is to run once
            CURRENT.set(
                CallContext(call.module, call.caller, call.method, monotonic() + _SHADOW_S, subject=call.subject)
            )
        began, first_s, items = monotonic(), 0.0, 0
        answer: Any = None
        error: BaseException | None = None
        try:
            async with asyncio.timeout(_SHADOW_S):
                if asked.method in engine.queues:
                    answer = await engine.call(asked.method, asked.arguments, monotonic() + _SHADOW_S)
                else:
                    async with aclosing(engine.stream(asked.method, asked.arguments)) as stream:
                        async for _ in stream:
                            first_s = first_s or monotonic() - began
                            items += 1
        except Exception as raised:
            error = raised
        finally:
            self._shadows -= 1
        outcome = Outcome(
            seconds=monotonic() - began, error=error, answer=answer, first_s=first_s, items=items, primary=primary
        )
        try:
            route.finished(self._contract, engine.model.version, asked, outcome)
        except Exception:
            _log.exception("a shadow's answer of %s could not be compared", self._contract)


def _deadline() -> float:
    call = current()
    return call.deadline if call is not None else NO_DEADLINE


def _no_files(_: ModelType) -> Artefacts | None:
    return None


def _nobody(_: ModelType, __: Module) -> Watching | None:
    return None
