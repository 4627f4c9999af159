"""The models of one host: their files from the registry, their versions, and which of them answers."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
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
from seamline.models.serving.place import loaded_with
from seamline.module.contract import UNARY, compile_contract
from seamline.module.models import Artefacts, ModelType
from seamline.module.wiring import Wiring

_log = logging.getLogger("seamline.models")
_CASE_S = 30.0


class Case(msgspec.Struct, frozen=True):
    """A call and what is to be answered."""

    method: str
    arguments: dict[str, Any]
    expected: Any


class ModelVersions:
    """Of one process."""

    def __init__(self, settings: Settings, data: Path, clock: Clock) -> None:
        self._settings = settings.models
        self._registry = Registry.of(settings, data, clock)
        self.rollout = Rollout(settings.models)
        self.rollout.apply(Keeper(self._registry.book, settings.models).splits())
        self.runtime = ModelsRuntime(route=self.rollout, artefacts=self._files_of, clock=clock)
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
            case "prepare":
                return await self._prepare(str(arguments["contract"]), arguments["versions"])
            case _:
                contract, versions = str(arguments["contract"]), list(arguments.get("versions") or ())
                if cases := arguments.get("cases"):
                    return await self._examined(contract, versions, msgspec.convert(cases, list[Case]))
                return await self._evaluate(contract, versions)

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

    async def _evaluate(self, contract: str, wanted: Sequence[str]) -> dict[str, dict[str, float]] | None:
        """What each version's own ``evaluate`` says, of an instance of its own; None where it is not hosted."""
        if contract not in self._models:
            return None
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
        self, contract: str, wanted: Sequence[str], cases: Sequence[Case]
    ) -> dict[str, dict[str, float]] | None:
        """What each version answers to known cases, beside what was to be answered."""
        if contract not in self._models:
            return None
        models, _ = self._models[contract]
        specs = compile_contract(models[0].contract).methods
        settings = self._settings.of(contract)
        same = comparison(settings.compare, settings.tolerance)
        asked: list[tuple[str, tuple[Any, ...], Any]] = []
        for number, case in enumerate(cases):
            if case.method not in specs or specs[case.method].kind != UNARY:
                raise UnknownVersionError(
                    f"case {number} asks {case.method!r}",
                    f"{contract} has {', '.join(specs)}; streams are not examined.",
                )
            asked.append(
                (case.method, specs[case.method].decode_request(msgspec.json.encode(case.arguments)), case.expected)
            )
        found: dict[str, dict[str, float]] = {}
        for version in wanted or [each.version for each in models]:
            right, errors, seconds = 0, 0, 0.0
            for method, arguments, expected in asked:
                began = monotonic()
                try:
                    answer = await self.runtime.ask(contract, version, method, arguments, _CASE_S)
                except Exception as error:  # whatever its code raises
                    _log.warning("%s@%s could not answer a case: %s", contract, version, error)
                    errors += 1
                    continue
                seconds += monotonic() - began
                right += same(expected, msgspec.json.decode(specs[method].result.encode(answer)))
            answered = len(asked) - errors
            found[version] = {
                "cases": len(asked), "right": right / len(asked), "errors": errors / len(asked),
                "ms": round(seconds * 1000 / answered, 3) if answered else 0.0,
            }  # fmt: skip
        return found

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


async def _blocking(function: Any, *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    return await asyncio.to_thread(function, *arguments)
