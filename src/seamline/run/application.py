"""An application as a whole: its settings, its modules, who provides what, and whether it all fits."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings, UnknownKeyError
from seamline.kernel.settings.tables import FILE_NAME, choices
from seamline.mesh.policy import (
    EVENTS,
    Arguments,
    DecisionPoint,
    Policy,
    Source,
    Vocabulary,
    arguments_of,
    policy_source,
)
from seamline.models.rollout.errors import UnknownVersionError
from seamline.module.contract import Contract, compile_contract
from seamline.module.errors import DuplicateModuleError, EventError, InsideImportError, ModuleImportError
from seamline.module.imports import find_inside_imports
from seamline.module.module import Module
from seamline.module.principal import Principal
from seamline.module.values import Event
from seamline.module.wiring import Platform, Wiring


class Application:
    """What ``seamline.toml`` names, imported.

    Attributes:
        folder: where ``seamline.toml`` lies; it is on the import path.
        settings: the file's contents.
        modules: the modules that were imported whole, by name; all of them unless ``load`` was told otherwise.
        contracts: every contract of the application, and the module that provides it.
        events: every event of the application, and the module in whose package it is declared.
    """

    def __init__(
        self,
        settings: Settings,
        modules: Mapping[str, Module],
        contracts: Mapping[type[Contract], str],
        events: Mapping[type[Event], str],
    ) -> None:
        self.folder = settings.folder
        self.settings = settings
        self.modules = dict(modules)
        self.contracts = dict(contracts)
        self.events = dict(events)

    @classmethod
    def load(
        cls, folder: Path | str, *, only: Iterable[str] | None = None, settings: Settings | None = None
    ) -> Application:
        """Import the application in ``folder``.

        Args:
            folder: where ``seamline.toml`` lies.
            only: import the insides of these modules alone; of the others, just the contracts.
            settings: already read, or None to read them.

        Raises:
            SettingsError: the file is wrong.
            ModuleImportError: a module cannot be imported, or is not one.
            DuplicateModuleError: two modules have one name or provide one contract.
            ModuleError: a contract is wrong.
        """
        settings = settings or Settings.load(folder)
        root = str(settings.folder)
        if root not in sys.path:
            sys.path.insert(0, root)
        wanted = set(settings.modules if only is None else only)
        contracts: dict[type[Contract], str] = {}
        events: dict[type[Event], str] = {}
        modules: dict[str, Module] = {}
        for name, package in settings.modules.items():
            face = _import(package)
            for contract in _contracts_in(face):
                _claim(contracts, contract, name)
            events |= dict.fromkeys(_events_in(face), name)
            if name in wanted:
                module = _module_in(package, name)
                modules[name] = module
                for contract in module.provides:
                    _claim(contracts, contract, name)
        return cls(settings, modules, contracts, events)

    def policy(self, source: Source | None = None) -> Policy:
        """The policy in the application's policy folder or its bundle, or one from elsewhere; deny by default."""
        # No attributes: a process that hosts one module knows only the contracts of the others, and must decide alike.
        modules: dict[str, dict[str, Any]] = {
            name: {} for name in (*self.settings.modules, *self.settings.foreign_modules)
        }
        return Policy.load(
            source or policy_source(self.settings),
            modules=modules,
            contracts=self.contract_methods(),
            arguments=self.policy_arguments(),
            vocabulary=self.vocabulary(),
            point=DecisionPoint(self.settings.policy) if self.settings.policy.decision_point else None,
        )

    def policy_arguments(self) -> dict[str, Arguments]:
        """What policy may read of arguments, by the method's full name. Raises ContractError."""
        return {name: each for c in self.contracts for name, each in arguments_of(compile_contract(c)).items()}

    def vocabulary(self) -> Vocabulary:
        """The names that policies may use beside those of the code."""
        policy = self.settings.policy
        return Vocabulary(policy.roles, policy.agents, policy.user_attributes)

    def contract_methods(self) -> dict[str, tuple[str, list[str]]]:
        """Contract name to its module and its methods."""
        return {c.__name__: (module, list(compile_contract(c).methods)) for c, module in self.contracts.items()}

    def topology(self, name: str) -> dict[str, tuple[str, ...]]:
        """Workload to modules. Raises UnknownTargetError."""
        from seamline.run.placement import groups

        return groups(self.settings, name)

    def findings(self, policy: Policy | None = None) -> list[SeamlineError]:
        """Everything that is wrong with the application, without starting any of it.

        ``policy`` is the application's, if it was read before.
        """
        found: list[SeamlineError] = []
        for module in self.modules.values():
            try:
                self.calls_of(module)
            except SeamlineError as error:
                found.append(error)
        found += self._inside_imports()
        found += self._unknown_rules()
        found += self._unknown_versions()
        try:
            found += self._unheard_events(policy or self.policy())
        except SeamlineError as error:
            found.append(error)
        return found

    def check(self, policy: Policy | None = None) -> None:
        """Raise the first finding; all of them are in its ``findings``."""
        found = self.findings(policy)
        if found:
            first = found[0]
            first.findings = found  # pyright: ignore[reportAttributeAccessIssue]
            raise first

    def calls_of(self, module: Module) -> set[type[Contract]]:
        """The contracts that a module calls, by its wiring. Raises ModuleError."""
        wiring = Wiring(module, self.providers(), checking_platform())
        used = wiring.check()
        if module.sagas:
            from seamline.sagas.kinds import check_sagas  # which brings SQLAlchemy, as the module itself does

            check_sagas(module.sagas, wiring)
        return used

    def graph(self) -> list[tuple[str, str, str]]:
        """The arrows between modules as (caller, contract, callee), in order: wired, or asked for with ``use``."""
        return [arrow[:3] for arrow in self.asked()]

    def asked(self) -> list[tuple[str, str, str, str]]:
        """:meth:`graph`, with the place where each contract is asked for."""
        return sorted(arrow for module in self.modules.values() for arrow in self.asked_by(module))

    def asked_by(self, module: Module) -> list[tuple[str, str, str, str]]:
        """The arrows that begin at one module."""
        owners = {contract.__name__: owner for contract, owner in self.contracts.items()}
        used = {**{c.__name__: module.place for c in self.calls_of(module)}, **_used_in(module.folder)}
        return sorted((module.name, name, owners[name], place) for name, place in used.items() if name in owners)

    def heard(self) -> list[tuple[str, str, str]]:
        """Which module handles which event of which, as (hearer, event, publisher), in order."""
        return sorted(
            {
                (module.name, handler.event.__name__, self.events[handler.event])
                for module in self.modules.values()
                for handler in module.event_handlers
                if handler.event in self.events
            }
        )

    def providers(self) -> dict[type[Contract], str]:
        return dict(self.contracts)

    def _unknown_rules(self) -> list[SeamlineError]:
        """Tables of ``[mesh]`` and ``[models]`` for contracts and methods that do not exist."""
        mesh = self.settings.mesh
        contracts = {contract.__name__ for contract in self.contracts}
        methods = {m.full_name for c in self.contracts for m in compile_contract(c).methods.values()}
        return [
            UnknownKeyError(
                f"[{table}.{name}] is for a {kind} that no module provides",
                choices(name, known),
                place=f"{FILE_NAME} [{table}]",
            )
            for table, kind, named, known in (
                ("mesh.contracts", "contract", mesh.contracts, contracts),
                ("mesh.methods", "method", mesh.methods, methods),
                ("models", "contract", self.settings.models.contracts, contracts),
            )
            for name in named
            if name not in known
        ]

    def _unknown_versions(self) -> list[SeamlineError]:
        """Versions in ``[models.<Contract>]`` that no model of the contract declares."""
        declared: dict[str, list[str]] = {}
        for module in self.modules.values():
            for model in module.models:
                declared.setdefault(model.contract.__name__, []).append(model.version)
        return [
            UnknownVersionError(
                f"{contract} has no version {version!r}",
                f"It has {', '.join(versions)}.",
                place=f"{FILE_NAME} [models.{contract}]",
            )
            for contract, versions in declared.items()
            if not (told := self.settings.models.of(contract)).engine
            for version in dict.fromkeys((*told.weights, *told.shadow, *told.artefacts))
            if version not in versions
        ]

    def _unheard_events(self, policy: Policy) -> list[SeamlineError]:
        """Handlers of events that nobody declares, or that policy keeps from them."""
        found: list[SeamlineError] = []
        for module in self.modules.values():
            for event in dict.fromkeys([*(handler.event for handler in module.event_handlers), *_awaited(module)]):
                owner = self.events.get(event)
                if owner is None:
                    found.append(
                        EventError(
                            f"module {module.name!r} handles {event.__name__}, which no module of the application "
                            "declares",
                            "Declare it in the package of the module that publishes it, and name that module in "
                            "`modules` of seamline.toml.",
                            place=module.place,
                        )
                    )
                elif owner != module.name and not policy.allows(module.name, owner, "", EVENTS):
                    found.append(
                        EventError(
                            f"module {module.name!r} handles {event.__name__}, but may not read the events of "
                            f"module {owner!r}",
                            policy.explain(module.name, owner, "", EVENTS).remedy,
                            place=module.place,
                        )
                    )
        return found

    def _inside_imports(self) -> list[SeamlineError]:
        packages = dict(self.settings.modules)
        return [
            InsideImportError(
                f"module {found.importer_module!r} imports {found.imported_dotted!r}, "
                f"the inside of module {found.owner_module!r}",
                f"Import from {packages[found.owner_module]!r}, its contract; what is missing there belongs there.",
                place=f"{found.file}:{found.line}",
            )
            # Who imports a module whole looks through its files: in a process for each module, each through its own.
            for found in find_inside_imports(packages, self.modules)
        ]


def _awaited(module: Module) -> list[type[Event]]:
    """The events that a module's sagas wait for."""
    if not module.sagas:
        return []
    from seamline.sagas.hearing import awaited_events  # as above

    return [event for saga in module.sagas for event in sorted(awaited_events(saga.function), key=str)]


def checking_platform() -> Platform:
    """What the platform will give, for checks that make nothing."""

    def nothing(_: Module) -> Any:
        return None

    lazily = (
        *database_class(),
        *events_classes(),
        *sagas_classes(),
        *secrets_class(),
        *views_class(),
        *language_models_class(),
        *datasets_class(),
    )
    return dict.fromkeys((Contract, *lazily, Clock, Settings, Module, Principal), nothing)


def database_class() -> tuple[type[Any], ...]:
    """``Database``, if a module has imported it: SQLAlchemy costs a process half a second and 15 MB to load."""
    store = sys.modules.get("seamline.kernel.store")
    return (store.Database,) if store is not None else ()


def events_classes() -> tuple[type[Any], ...]:
    """``Events`` and ``EventContext``, each if a module has imported it; likewise."""
    return _imported(("seamline.events.events", "Events"), ("seamline.events.context", "EventContext"))


def sagas_classes() -> tuple[type[Any], ...]:
    """``Sagas``, if a module has imported it; likewise."""
    return _imported(("seamline.sagas.sagas", "Sagas"))


def secrets_class() -> tuple[type[Any], ...]:
    """``Secrets``, if a module has imported it; likewise."""
    return _imported(("seamline.secrets.secrets", "Secrets"))


def language_models_class() -> tuple[type[Any], ...]:
    """``LanguageModels``, if a module has imported it; likewise."""
    return _imported(("seamline.models.gateway.pipeline", "LanguageModels"))


def datasets_class() -> tuple[type[Any], ...]:
    """``Datasets``, if a module has imported it; likewise."""
    return _imported(("seamline.models.watch.datasets", "Datasets"))


def _imported(*names: tuple[str, str]) -> tuple[type[Any], ...]:
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


def views_class() -> tuple[type[Any], ...]:
    """``Views``, if a module has imported it; likewise."""
    views = sys.modules.get("seamline.events.streams.views")
    return (views.Views,) if views is not None else ()


def _import(dotted: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except SeamlineError:
        raise
    except Exception as error:
        raise ModuleImportError(
            f"{dotted!r} cannot be imported: {type(error).__name__}: {error}",
            "Correct it, or the name in `modules` of seamline.toml.",
            place=_place_of(error),
        ) from error


def _place_of(error: Exception) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return _place_in_traceback(error)


def _place_in_traceback(error: Exception) -> str | None:
    trace = error.__traceback__
    place: str | None = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "importlib" not in file and not file.endswith("run/application.py"):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _contracts_in(package: ModuleType) -> list[type[Contract]]:
    return [
        value
        for value in vars(package).values()
        if inspect.isclass(value)
        and issubclass(value, Contract)
        and value is not Contract
        and value.__module__ == package.__name__
    ]


def _events_in(package: ModuleType) -> list[type[Event]]:
    """Declared in the package, or in a file of it that its ``__init__`` imports from."""
    name = package.__name__
    return [
        value
        for value in vars(package).values()
        if inspect.isclass(value)
        and issubclass(value, Event)
        and value is not Event
        and (value.__module__ == name or value.__module__.startswith(f"{name}."))
    ]


def _used_in(folder: Path) -> dict[str, str]:
    """The names of contracts that a module's files ask for with ``use(Contract)``, found without running them, each
    with the first place."""
    used: dict[str, str] = {}
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            match node:
                case ast.Call(
                    func=ast.Name(id="use") | ast.Attribute(attr="use"),
                    args=[ast.Name(id=contract) | ast.Attribute(attr=contract)],
                ):
                    used.setdefault(contract, f"{file}:{node.lineno}")
                case _:
                    pass
    return used


def _module_in(package: str, name: str) -> Module:
    inside = _import(f"{package}.module")
    module = getattr(inside, "module", None)
    if not isinstance(module, Module):
        raise ModuleImportError(
            f"{package}.module has no `module`", f'Write `module = Module("{name}", ...)` in it.', place=inside.__file__
        )
    if module.name != name:
        raise ModuleImportError(
            f"the module in package {package!r} is called {module.name!r}",
            f'A module is called by its package: write `Module("{name}", ...)`, or rename the package.',
            place=module.place,
        )
    return module


def _claim(contracts: dict[type[Contract], str], contract: type[Contract], module: str) -> None:
    compile_contract(contract)
    for other, owner in contracts.items():
        if other.__name__ == contract.__name__ and (other is not contract or owner != module):
            raise DuplicateModuleError(
                f"the contract {contract.__name__!r} belongs to module {owner!r} and to module {module!r}",
                "A contract has one name and one module: rename or remove one.",
            )
    contracts[contract] = module
