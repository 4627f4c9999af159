"""The models of one host: their files from the registry, their versions, and which of them answers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from seamline.kernel.clock import Clock
from seamline.kernel.settings import Settings
from seamline.models.errors import ModelLoadError
from seamline.models.registry import Registry
from seamline.models.rollout.compare import comparison
from seamline.models.rollout.errors import UnknownVersionError
from seamline.models.rollout.keeper import Keeper
from seamline.models.rollout.route import Rollout
from seamline.models.rollout.split import Split
from seamline.models.runtime import ModelsRuntime
from seamline.models.serving.engine import Engine
from seamline.models.serving.place import loaded_with
from seamline.models.serving.served import served
from seamline.models.watch.datasets import FOLDER, Datasets
from seamline.models.watch.declared import QUALITY, Watched, watched
from seamline.models.watch.errors import ReplayError
from seamline.models.watch.evaluation import Case, Examination, cases_of, words_of
from seamline.models.watch.replay import Today, replay
from seamline.module.contract import compile_contract
from seamline.module.models import Artefacts, ModelType
from seamline.module.module import Module
from seamline.module.wiring import Wiring

_log = logging.getLogger("seamline.models")
_CASE_S = 30.0
_LAST = 1_000
"""Captured calls that versions are asked, where nobody says how many: the newest."""

Say = Callable[[str], Awaitable[None]]


class ModelVersions:
    """Of one process."""

    def __init__(self, settings: Settings, data: Path, clock: Clock) -> None:
        self._settings = settings.models
        self._registry = Registry.of(settings, data, clock)
        self.rollout = Rollout(settings.models, heard=self._scored)
        self.rollout.apply(Keeper(self._registry.book, settings.models).splits())
        self.runtime = ModelsRuntime(route=self.rollout, artefacts=self._files_of, clock=clock, watching=self._watching)
        self._clock = clock
        self.datasets = Datasets(data / FOLDER, clock)
        self._watched: dict[tuple[str, str], Watched] = {}
        self._files: dict[str, Artefacts | None] = {}
        self._models: dict[str, tuple[Sequence[ModelType], Wiring]] = {}

    async def open(self, models: Sequence[ModelType], wiring: Wiring) -> object:
        """What provides the contract of these versions. Raises ModelLoadError, RegistryError."""
        contract = models[0].contract
        self._models[contract.__name__] = (models, wiring)
        for model in models:  # files may be large, and each is compared with its digest
            self._files[model.name] = await asyncio.to_thread(self._artefacts, model)
        if len(models) > 1:  # of one version nothing is chosen, counted or compared
            compare = next((each.cls.compare for each in models if hasattr(each.cls, "compare")), None)
            self.rollout.know(contract, [model.version for model in models], compare)
        return await self.runtime.open(models, wiring)

    def _watching(self, model: ModelType, module: Module) -> Watched | None:
        found = watched(model, module, self._files_of(model), self._clock, self.datasets)
        if found is not None:
            self._watched[model.contract.__name__, model.version] = found
        return found

    def _scored(self, contract: str, version: str, score: float) -> None:
        if (found := self._watched.get((contract, version))) is not None:
            found.told(QUALITY, score)

    def _files_of(self, model: ModelType) -> Artefacts | None:
        return self._files.get(model.name)

    def _artefacts(self, model: ModelType) -> Artefacts | None:
        """What the settings name for a version, or what the registry has under the contract's name and its version."""
        contract = model.contract.__name__
        named = self._settings.of(contract).artefacts.get(model.version)
        if named:
            return self._registry.open(named)
        if any(row[1] == model.version for row in self._registry.book.versions(contract)):
            return self._registry.open(f"{contract}:{model.version}")
        return None

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """What the supervisor wants to know, or to hold from now on."""
        match operation:
            case "splits":
                self.rollout.apply(msgspec.convert(arguments["splits"], dict[str, Split]))
                return None
            case "seen":
                return [msgspec.to_builtins(each) for each in self.rollout.seen(str(arguments["contract"]))]
            case "rollouts":
                return self._rollouts()
            case _:
                return await self._prepare(str(arguments["contract"]), arguments["versions"])

    async def work(self, job: str, arguments: Mapping[str, Any], say: Say) -> dict[str, Any]:
        """What takes long: to ``evaluate`` versions of a contract hosted here, or to ``replay`` what was decided."""
        contract, versions = str(arguments["contract"]), [str(each) for each in arguments.get("versions") or ()]
        if job == "replay":
            return await self._replay(contract, versions[0] if versions else "", arguments, say)
        if cases := arguments.get("cases"):
            return await self._examined(contract, versions, msgspec.convert(cases, list[Case]), arguments, say)
        if dataset := str(arguments.get("dataset") or ""):
            last = int(arguments.get("last") or _LAST)
            found = await asyncio.to_thread(cases_of, self.datasets.known(dataset), contract, last)
            return await self._examined(contract, versions, found, arguments, say)
        return {"versions": await self._evaluate(contract, versions)}

    def _rollouts(self) -> dict[str, Any]:
        stats = self.rollout.stats()
        for contract, (_, wiring) in self._models.items():
            if contract in stats:
                stats[contract]["module"] = wiring.module.name
        single = {
            contract: {"module": wiring.module.name, "version": models[0].version}
            for contract, (models, wiring) in self._models.items()
            if contract not in stats
        }
        return {"contracts": stats, "single": single}

    async def _prepare(self, contract: str, versions: Sequence[str]) -> None:
        """Load versions before calls come to them."""
        if contract in self._models:
            await asyncio.gather(*(self.runtime.prepare(contract, version) for version in versions))

    async def _evaluate(self, contract: str, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
        """What each version's own ``evaluate`` says, of an instance of its own."""
        models, wiring = self._models[contract]
        chosen = [each for each in models if each.version in wanted or (not wanted and hasattr(each.cls, "evaluate"))]
        found: dict[str, dict[str, float]] = {}
        for model in chosen:
            if not hasattr(model.cls, "evaluate"):
                raise UnknownVersionError(
                    f"{model.name} cannot be evaluated", "Give its class `def evaluate(self) -> dict[str, float]`."
                )
            found[model.version] = await self._evaluated(model, wiring)
        return found

    async def _examined(
        self, contract: str, wanted: Sequence[str], cases: Sequence[Case], arguments: Mapping[str, Any], say: Say
    ) -> dict[str, Any]:
        """What each version answers to known cases, or to what was captured."""
        models, _ = self._models[contract]
        settings = self._settings.of(contract)
        same = comparison(settings.compare, settings.tolerance)
        examination = Examination(
            contract,
            compile_contract(models[0].contract).methods,
            lambda version, method, given: self.runtime.ask(contract, version, method, given, _CASE_S),
            same=same,
            alike=lambda then, now: same(words_of(then), words_of(now)),
            examples=int(arguments.get("examples") or 0),
        )
        return await examination.run(list(wanted) or [each.version for each in models], cases, say)

    async def _replay(self, contract: str, version: str, arguments: Mapping[str, Any], say: Say) -> dict[str, Any]:
        """What would be decided today of what was decided since then."""
        models, wiring = self._models[contract]
        cls = wiring.module.replayers.get(models[0].contract)
        if cls is None:
            raise ReplayError(
                f"module {wiring.module.name!r} does not say how to replay what it decides with {contract}",
                f"Write a class with `@module.replays({contract})`.",
            )
        chosen = version or self._champion(contract)
        today = Today(
            model=served(models[0].contract, _OneVersion(self.runtime, contract, chosen)),
            version=chosen,
            policy=msgspec.convert(arguments.get("policy") or {}, dict[str, str]),
        )
        since = datetime.fromtimestamp(self._clock.now().timestamp() - float(arguments["since_s"]), UTC)
        return await replay(await wiring.build(cls), today, since, say)

    def _champion(self, contract: str) -> str:
        split = self.rollout.split(contract)
        return split.champion if split is not None else self._models[contract][0][0].version

    async def _evaluated(self, model: ModelType, wiring: Wiring) -> dict[str, float]:
        instance: Any = await wiring.build(model.cls)
        try:
            load = getattr(instance, "load", None)
            if load is not None:
                await _blocking(load, *loaded_with(load, self._files_of(model)))
            found = await _blocking(instance.evaluate)
            return {str(name): float(value) for name, value in cast("Mapping[str, Any]", found).items()}
        except Exception as error:  # whatever its code raises
            _log.exception("%s could not be evaluated", model.name)
            raise ModelLoadError(
                f"{model.name} could not be evaluated: {type(error).__name__}: {error}", "The log has the traceback."
            ) from error
        finally:
            unload = getattr(instance, "unload", None)
            if unload is not None:
                await _blocking(unload)


class _OneVersion:
    """Answers a contract by one version, whatever the route says. See ``Answering``."""

    def __init__(self, runtime: ModelsRuntime, contract: str, version: str) -> None:
        self._runtime = runtime
        self._contract = contract
        self._version = version

    def __iter__(self) -> Iterator[Engine]:
        """Of what it has ahead others tell."""
        return iter(())

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return await self._runtime.ask(self._contract, self._version, method, arguments, _CASE_S)

    def stream(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        _ = arguments
        raise ReplayError(f"{self._contract}.{method} streams", "Decide by a method that answers at once.")


async def _blocking(function: Any, *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    return await asyncio.to_thread(function, *arguments)
