"""Wiring by type: constructors, factories and handlers say what they need in their annotations.

Three sources answer: contracts of other modules (as stubs bound to the asking module's identity), what the
platform gives (Database, Clock, Settings, ...), and what the module's own factories make.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from seamline.module.contract import SERVER_STREAM, UNARY, Contract, MethodSpec, compile_contract
from seamline.module.errors import ServiceError, UnknownContractError, WiringCycleError, WiringError
from seamline.module.models import ModelType, Watch, is_batched
from seamline.module.module import Module

Platform = Mapping[type[Any], Callable[[Module], Any]]
"""What the platform gives, by type: a function from the asking module to the thing."""


def needs(function: Callable[..., Any], *, skip: int = 0) -> dict[str, tuple[Any, bool]]:
    """Parameter name to (type, required) of a constructor, factory or handler."""
    target = function.__init__ if isinstance(function, type) else function  # pyright: ignore[reportGeneralTypeIssues]
    if target is object.__init__:
        return {}
    hints = _hints(target, function)
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    found: dict[str, tuple[Any, bool]] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        if parameter.name not in hints:
            if required:
                raise WiringError(
                    f"the parameter {parameter.name!r} of {_label(function)} has no type",
                    "Wiring goes by type: annotate it.",
                    place=place_of(function),
                )
            continue
        found[parameter.name] = (hints[parameter.name], required)
    return found


def _hints(annotated: Any, shown: Callable[..., Any]) -> dict[str, Any]:
    """The types in the annotations of a function. Raises WiringError where one cannot be found from its file."""
    try:
        return typing.get_type_hints(annotated)
    except NameError as error:
        raise WiringError(
            f"{_label(shown)} asks for the type {error.name!r}, which is no name at the top of its file",
            "Wiring reads annotations there: import or define it at the top, not in a function or under TYPE_CHECKING.",
            place=place_of(shown),
        ) from None


class Wiring:
    """The wiring of one module: checks it without running anything, then builds it."""

    def __init__(self, module: Module, providers: Mapping[type[Contract], str], platform: Platform) -> None:
        self.module = module
        self._providers = providers
        self._platform = platform
        self._factories: dict[Any, Callable[..., Any]] = {}
        for factory in module.factories:
            made = _hints(factory, factory).get("return")
            if made is None:
                raise WiringError(
                    f"the factory {_label(factory)} does not say what it makes",
                    "Annotate its return type.",
                    place=place_of(factory),
                )
            self._factories[made] = factory
        self._made: dict[Any, Any] = {}

    def asks_for(self, kind: type[Any]) -> bool:
        """Whether any constructor, factory, hook or handler of the module asks for ``kind``."""
        functions = [
            *((f, 0) for f in self._roots()),
            *((h.function, 1) for h in self.module.event_handlers),
            *((s.function, 1) for s in self.module.sagas),
            *((r.function, 1) for r in self.module.rotations),
        ]
        return any(wanted is kind for f, skip in functions for wanted, _ in needs(f, skip=skip).values())

    def check(self) -> set[type[Contract]]:
        """Check that everything asked for exists and nothing goes round in a circle.

        Returns the contracts that the module calls. Raises WiringError, UnknownContractError, WiringCycleError
        or ServiceError.
        """
        used: set[type[Contract]] = set()
        for contract in self.module.provides:
            compile_contract(contract)
            self._check_provided(contract)
        for function in self._roots():
            self._walk(function, 0, used, ())
        for handler in (*self.module.event_handlers, *self.module.rotations):
            self._walk(handler.function, 1, used, ())
        for saga in self.module.sagas:
            inputs = self.inputs(saga.function)
            self._walk(saga.function, 1, used, (), given=frozenset(inputs))
        for mount in self.module.mounts:
            used.update(contracts_used_by_app(mount.app))
        return used

    def inputs(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The parameters of a saga after its first that nobody wires, and their types: its input."""
        return {
            name: wanted
            for name, (wanted, _) in needs(function, skip=1).items()
            if not (_is_contract(wanted) or wanted in self._factories or wanted in self._platform)
        }

    def _roots(self) -> list[Callable[..., Any]]:
        module = self.module
        models = [model.cls for model in module.models]
        again = module.replayers.values()
        return [*module.services, *models, *again, *module.factories, *module.startups, *module.shutdowns]

    def _check_provided(self, contract: type[Contract]) -> None:
        services = [cls for cls in self.module.services if issubclass(cls, contract)]
        models = [model for model in self.module.models if model.contract is contract]
        if models and not services:
            for model in models:
                check_model(model)
            return
        if len(services) != 1:
            raise ServiceError(
                f"module {self.module.name!r} provides {contract.__name__!r} with {len(services)} services",
                "Write exactly one class with `@module.service` that derives from it, or models of it.",
                place=self.module.place,
            )
        cls = services[0]
        for method in compile_contract(contract).methods.values():
            own = getattr(cls, method.name)
            if own is getattr(contract, method.name):
                raise ServiceError(
                    f"{cls.__name__} does not implement {method.full_name}",
                    f"Write the method {method.name!r}.",
                    place=place_of(cls),
                )
            names = list(inspect.signature(own).parameters)[1:]
            expected = [p.name for p in method.parameters]
            if names[: len(expected)] != expected:
                raise ServiceError(
                    f"{cls.__name__}.{method.name} takes {names}, the contract says {expected}",
                    "Give it the contract's parameters, in the contract's order.",
                    place=place_of(own),
                )

    def _walk(
        self,
        function: Any,
        skip: int,
        used: set[type[Contract]],
        path: tuple[str, ...],
        given: frozenset[str] = frozenset(),
    ) -> None:
        label = _label(function)
        if label in path:
            circle = " -> ".join((*path[path.index(label) :], label))
            raise WiringCycleError(
                f"in module {self.module.name!r} constructors need each other: {circle}",
                "Break the circle: take one of them out of a constructor.",
                place=place_of(function),
            )
        for name, (wanted, required) in needs(function, skip=skip).items():
            if name in given:
                continue
            if _is_contract(wanted):
                self._check_provider(wanted, function, name)
                used.add(wanted)
            elif wanted in self._factories:
                self._walk(self._factories[wanted], 0, used, (*path, label))
            elif wanted not in self._platform and required:
                shown = getattr(wanted, "__qualname__", str(wanted))
                raise WiringError(
                    f"{label} of module {self.module.name!r} asks for {name}: {shown}, which nothing provides",
                    f"Write a factory: `@module.provide` on a function that returns {shown}.",
                    place=place_of(function),
                )

    def _check_provider(self, contract: type[Contract], function: Any, name: str) -> None:
        if contract not in self._providers:
            raise UnknownContractError(
                f"{_label(function)} of module {self.module.name!r} asks for {name}: {contract.__name__}, "
                "but no module provides that contract",
                "Add the module that provides it to `modules` in seamline.toml.",
                place=place_of(function),
            )

    async def build(self, function: Callable[..., Any], *, skip: int = 0) -> Any:
        """Call a constructor, factory or hook with what it asks for, made on first need."""
        arguments = {name: await self._make(wanted) for name, (wanted, _) in self._available(function, skip)}
        made = function(**arguments)
        return await made if inspect.isawaitable(made) else made

    async def arguments(
        self, function: Callable[..., Any], *, skip: int, without: Collection[Any] = ()
    ) -> dict[str, Any]:
        """What a handler wants beside its first ``skip`` arguments and what is of a type ``without``, by name."""
        return {
            name: await self._make(wanted)
            for name, (wanted, _) in self._available(function, skip)
            if wanted not in without
        }

    def _available(self, function: Callable[..., Any], skip: int) -> list[tuple[str, tuple[Any, bool]]]:
        return [
            (name, need)
            for name, need in needs(function, skip=skip).items()
            if _is_contract(need[0]) or need[0] in self._factories or need[0] in self._platform
        ]

    async def _make(self, wanted: Any) -> Any:
        if wanted in self._made:
            return self._made[wanted]
        factory = self._factories.get(wanted)
        if factory is not None:
            value = await self.build(factory)
        elif _is_contract(wanted):
            value = cast("Any", self._platform[Contract])(self.module)(wanted)
        else:
            value = self._platform[wanted](self.module)
        self._made[wanted] = value
        return value


def check_model(model: ModelType) -> None:
    """Whether a model's methods can answer its contract's. Raises ServiceError."""
    cls = model.cls
    if model.runs_in == "process":
        _check_model_of_processes(model)
    for spec in compile_contract(model.contract).methods.values():
        own = getattr(cls, spec.name, None)
        wrong = f"{cls.__name__} has no method {spec.name!r}" if own is None else _wrong_with(own, spec, model)
        if wrong:
            raise ServiceError(
                wrong, f"{spec.full_name} is what it has to answer.", place=place_of(cls if own is None else own)
            )
    if model.watch is not None:
        _check_watch(model, model.watch)


def _check_watch(model: ModelType, watch: Watch) -> None:
    """What is compared in one window has to be of one kind. Raises ServiceError."""
    specs = compile_contract(model.contract).methods
    unknown = [name for name in watch.methods if name not in specs]
    chosen = [specs[name] for name in watch.methods or specs if name in specs]
    taken = [[(each.name, each.annotation) for each in spec.parameters] for spec in chosen]
    if unknown or any(each != taken[0] for each in taken):
        wrong = f"has no method {unknown[0]!r}" if unknown else "has methods that take unlike arguments"
        raise ServiceError(
            f"{model.name} is to be watched, and {model.contract.__name__} {wrong}",
            f"Say whose calls are compared: `Watch(methods=[{next(iter(specs))!r}])`.",
            place=place_of(model.cls),
        )


def _wrong_with(own: Callable[..., Any], spec: MethodSpec, model: ModelType) -> str:
    label = f"{model.cls.__name__}.{spec.name}"
    names, expected = list(inspect.signature(own).parameters)[1:], [each.name for each in spec.parameters]
    streams = inspect.isgeneratorfunction(own) or inspect.isasyncgenfunction(own)
    if spec.kind not in (UNARY, SERVER_STREAM):
        return f"{spec.full_name} takes a stream, which no model can"
    if names[: len(expected)] != expected:
        return f"{label} takes {names}, the contract says {expected}"
    if streams != (spec.kind == SERVER_STREAM):
        return f"{label} is {'a' if streams else 'no'} generator, {spec.full_name} is {'no' if streams else 'a'} stream"
    if is_batched(own) and (streams or not expected):
        return f"{label} is batched, and {'streams' if streams else 'takes nothing that could be put together'}"
    is_async = inspect.iscoroutinefunction(own) or inspect.isasyncgenfunction(own)
    if model.runs_in == "loop" and not is_async:
        return f"{label} is not async, and the model is to run in the loop"
    if model.runs_in == "process" and is_async:
        return f"{label} is async, and the model is to run in processes of its own"
    return ""


def _check_model_of_processes(model: ModelType) -> None:
    """Such a process finds the class by its name, and makes it by itself. Raises ServiceError."""
    for cls in (model.cls, model.contract):
        if "<locals>" in cls.__qualname__ or cls.__module__ == "__main__":
            raise ServiceError(
                f"the processes of {model.name} cannot import {cls.__qualname__!r} of {cls.__module__!r}",
                "Write the class at the top of a file that can be imported.",
                place=place_of(cls),
            )
    asked = [name for name, (_, required) in needs(model.cls).items() if required]
    if asked:
        raise ServiceError(
            f"{model.cls.__name__} asks for {', '.join(asked)}, which is not there in the processes of a model",
            "Let its constructor take nothing: what it works with is loaded by `load`, or comes with each call.",
            place=place_of(model.cls),
        )


def _is_contract(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, Contract) and wanted is not Contract


def _label(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


def place_of(function: Any) -> str:
    """``file:line`` of a class or function, for error messages."""
    try:
        return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError):
        return str(getattr(function, "__module__", "?"))


def contracts_used_by_app(app: Any) -> set[type[Contract]]:
    """The contracts a FastAPI app asks for with ``Depends(use(...))``, found by walking its dependants."""
    used: set[type[Contract]] = set()
    seen: set[int] = set()
    pending: list[Any] = list(getattr(app, "routes", ()) or ())
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        contract = getattr(getattr(item, "call", None), "__seamline_contract__", None)
        if contract is not None:
            used.add(contract)
        for name in ("routes", "dependant", "dependencies"):
            inner = getattr(item, name, None)
            if inner is not None:
                pending.extend(cast("list[Any]", inner) if isinstance(inner, list | tuple) else [inner])
    return used
