"""One process that hosts modules: wires them, binds them to the mesh, serves, drains and stops.

A worker is a host with sockets and an identity; a test in one process is a host without either.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from seamline.kernel.audit import AuditLog
from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import Settings
from seamline.kernel.signal import here
from seamline.kernel.signal.gauges import GAUGES
from seamline.kernel.signal.metrics import Flow
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.identity.keyring import LocalSigners
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy.operations import PolicyOperations
from seamline.module.context import call_as_a_whole, current, under
from seamline.module.contract import Contract
from seamline.module.models import ModelType
from seamline.module.module import Module
from seamline.module.port import CallPort
from seamline.module.principal import Principal
from seamline.module.wiring import Platform, Wiring
from seamline.run.application import (
    database_class,
    datasets_class,
    events_classes,
    language_models_class,
    sagas_classes,
    secrets_class,
    views_class,
)
from seamline.run.doorway import make_door, make_limiter, own_hosts
from seamline.run.faces import Faces, PublicRoute
from seamline.run.models.gateways import AiGateways
from seamline.run.otel import OPENTELEMETRY
from seamline.run.sensitive import Sensitive

if TYPE_CHECKING:
    from seamline.events.runtime import EventsRuntime
    from seamline.events.streams.service import ViewsService
    from seamline.events.streams.views import Views
    from seamline.gateway.gateway import Gateway
    from seamline.gateway.limits.sharing import Store
    from seamline.kernel.signal.measures import Measure
    from seamline.kernel.store import Database
    from seamline.mesh.balance import Endpoint
    from seamline.mesh.identity import WorkloadIdentity
    from seamline.mesh.policy import Policy, SecretRules
    from seamline.run.application import Application
    from seamline.run.models.room import ModelRoom
    from seamline.run.models.versions import ModelVersions, Say
    from seamline.sagas.once import Once
    from seamline.sagas.runtime import SagasRuntime
    from seamline.secrets.interface import Source
    from seamline.secrets.runtime import SecretsRuntime
    from seamline.secrets.secrets import Secrets

C = TypeVar("C", bound=Contract)
_log = logging.getLogger("seamline.run")
_OF_VERSIONS = frozenset({"rollouts", "splits", "seen", "prepare"})
"""What is asked of ``ModelVersions``; the rest is for people, and of ``ModelRoom``."""


class Host:
    """Hosts some of an application's modules in this process.

    Args:
        application: loaded with at least the modules hosted here.
        modules: which to host; all that are loaded when None.
        data: the data directory.
        identity: the certificates of the modules, or None when nothing leaves or enters the process.
        policy: who may call what; the application's own when None.
        clock: what modules get when they ask for a Clock.
        migrate: bring each database up to date at the start, as in development; else old tables are refused.
        replace: services that stand in for a contract's own (fakes in tests).
        announce: called with ``events/<module>`` or ``sagas/<module>`` when something was written there, for the
            other processes that host the module.
        secrets: whom to ask for secrets; a keeper of the host's own when None.
        limits: who adds up what the gateways of this machine let through; None where this is the only one.
    """

    def __init__(
        self,
        application: Application,
        *,
        modules: Sequence[str] | None = None,
        data: Path | None = None,
        identity: WorkloadIdentity | None = None,
        policy: Policy | None = None,
        clock: Clock | None = None,
        copies: bool | None = None,
        workload: str = "local",
        migrate: bool = True,
        replace: Mapping[type[Contract], object] | None = None,
        announce: Callable[[str], None] | None = None,
        secrets: Source | None = None,
        limits: Store | None = None,
    ) -> None:
        settings = application.settings
        self.application = application
        self.settings = settings
        self.data = data or settings.data_folder
        self.clock = clock or SystemClock()
        self.modules: list[Module] = [
            application.modules[name] for name in (modules if modules is not None else application.modules)
        ]
        self._migrate = migrate
        self._replace = dict(replace or {})
        self.audit = AuditLog(self.data / "audit" / f"{workload}.jsonl", files_max=settings.audit.files_max)
        self.mesh = Mesh(
            settings.app.name,
            policy or application.policy(),
            settings.mesh,
            identity=identity,
            audit=self.audit,
            tracer=Tracer(
                settings.telemetry.sample,
                sample_per_s=settings.telemetry.sample_per_s,
                slow_ms=settings.telemetry.slow_ms,
            ),
            copies=settings.app.isolation == "copy" if copies is None else copies,
            signers=LocalSigners(self.data / "identity", settings.trust_domain, settings.app.name),
            clock=self.clock,
        )
        self.port: CallPort = self.mesh
        for contract, module in application.contracts.items():
            self.mesh.know(contract, module)
        self._databases: dict[str, Database] = {}
        self._announce = announce or _nobody_else
        self._owner = process_owner(workload)
        self._events: EventsRuntime | None = None
        self._sagas: SagasRuntime | None = None
        self._models: ModelVersions | None = None
        self._model_room: ModelRoom | None = None
        self._ai = AiGateways(
            settings.ai_gateway, self.data, application.contracts, self.stub, self.clock, self.mesh.tracer
        )
        self._secrets: SecretsRuntime | None = None
        self._secrets_source = secrets
        self._limits = limits
        self._secrets_audit: AuditLog | None = None
        self._secret_rules: SecretRules | None = None
        self._sensitive = Sensitive(settings.audit.sensitive, self.audit, self.mesh)
        self.mesh.around = self._sensitive.around
        self._views: list[ViewsService] = []
        self._wirings: dict[str, Wiring] = {}
        self._faces = Faces(self.mesh, self.stub, self._sensitive.request)
        self._gateway: Gateway | None = None
        self._routes: list[PublicRoute] = []
        here.set_source(current, under)

    # Start.

    async def start(self) -> None:
        """Wire the modules, bring their databases up, run their startup hooks, and serve their contracts."""
        platform = self._platform()
        for module in self.modules:
            wiring = Wiring(module, self.application.providers(), platform)
            wiring.check()
            self._wirings[module.name] = wiring
        await self._open_secrets()
        self._know_events()
        for module in self.modules:
            await self._open(module, self._wirings[module.name])
        if self._events is not None:
            await self._events.open()
        if self._sagas is not None:
            await self._sagas.open()
        for module in self.modules:
            await self._provide(module, self._wirings[module.name])
        for module in self.modules:
            for hook in module.startups:
                await self._wirings[module.name].build(hook)
            await self._faces.start(module)
        self.mesh.tunnels.update(self._faces.tunnels())
        await self._ai.start()
        for runtime in self._runtimes():
            await runtime.start()
        if self._secrets is not None:
            await self._secrets.start({module.name: (module, self._wirings[module.name]) for module in self.modules})
        OPENTELEMETRY.join(self.mesh.tracer)

    async def _open(self, module: Module, wiring: Wiring) -> None:
        """The module's database, if it needs one, and what the platform keeps there for it."""
        # Who declares events has a log, also if nothing publishes yet: others may read it.
        declares = module.name in self.application.events.values()
        asks = any(wiring.asks_for(kind) for kind in events_classes())
        events = declares or asks or bool(module.event_handlers)
        sagas = bool(module.sagas) or any(wiring.asks_for(kind) for kind in sagas_classes())
        stores = module.tables is not None or any(wiring.asks_for(kind) for kind in database_class())
        if not (events or sagas or stores):
            return
        database = await self._logged_in(module) if self._logs_in else self._database(module)
        await database.start()
        from seamline.kernel.store import prepare

        await prepare(database, module.folder / "migrations", development=self._migrate)
        if events or sagas:
            self._events_runtime().add(module, database, wiring)
        if sagas:
            self._sagas_runtime().add(module, database, wiring)

    @property
    def _logs_in(self) -> bool:
        return self.settings.data.credentials == "dynamic"

    async def _open_secrets(self) -> None:
        """What modules ask for secrets through, if any of them does."""
        wanted = any(wiring.asks_for(kind) for wiring in self._wirings.values() for kind in secrets_class())
        if not (wanted or self._logs_in or any(module.rotations for module in self.modules)):
            return
        from seamline.secrets.runtime import SecretsRuntime

        settings = self.settings.secrets
        if self._secrets_source is not None:
            self._secrets = SecretsRuntime(self._secrets_source, self.clock, settings)
            return
        from seamline.mesh.policy import SecretRules
        from seamline.mesh.policy.sources import policy_source
        from seamline.run.keeping import secrets_audit
        from seamline.secrets.opening import open_keeper

        self._secrets_audit = audit = secrets_audit(self.data)
        self._secret_rules = rules = SecretRules(policy_source(self.settings), self.settings.modules)
        keeper = await asyncio.to_thread(
            open_keeper, self.settings, self.data, rules.denial, partial(audit.write, "secret"), self.clock
        )
        self._secrets = SecretsRuntime.alone(keeper, self.clock, settings)

    def _secrets_of(self, module: Module) -> Secrets:
        assert self._secrets is not None
        return self._secrets.secrets_of(module.name)

    async def _logged_in(self, module: Module) -> Database:
        """The module's database, with a login that is replaced while it runs."""
        from seamline.kernel.store import Database, Login, set_scope_source

        assert self._secrets is not None
        set_scope_source(call_as_a_whole)
        url, lifetime_s = await self._secrets.log_in(module.name)
        database = self._databases[module.name] = Database(
            url.render_as_string(hide_password=True), module.name, module.tables, login=Login(url)
        )
        database.statements.tell(self.mesh.tracer)
        self._secrets.keep_logged_in(database, lifetime_s)
        return database

    def _know_events(self) -> None:
        """Where consumers here will read, whoever hosts it."""
        if any(module.event_handlers or module.sagas for module in self.modules):
            from seamline.events.reading import log_contract

            for name in set(self.application.events.values()):
                self.mesh.know(log_contract(name), name)

    def _events_runtime(self) -> EventsRuntime:
        if self._events is None:
            from seamline.events.runtime import EventsRuntime

            self._events = EventsRuntime(
                self.settings.app.name,
                self.settings.events,
                self.clock,
                self.port,
                self.mesh.tracer,
                self.application.events,
                lambda topic: self._announce(f"events/{topic}"),
                self._owner,
                reachable=self.mesh.reachable,
                proofs=self.mesh.waiting,
                audit=partial(self.audit.write, "call"),
            )
        return self._events

    def _sagas_runtime(self) -> SagasRuntime:
        if self._sagas is None:
            from seamline.sagas.runtime import SagasRuntime

            self._sagas = SagasRuntime(
                self.settings.app.name,
                self.settings.sagas,
                self.clock,
                tracer=self.mesh.tracer,
                announce=lambda module: self._announce(f"sagas/{module}"),
                owner=self._owner,
                events=self._events,
                reachable=self.mesh.reachable,
                proofs=self.mesh.waiting,
            )
        return self._sagas

    def _models_here(self) -> ModelVersions:
        if self._models is None:
            from seamline.run.models.versions import ModelVersions

            self._models = ModelVersions(self.settings, self.data, self.clock)
        return self._models

    def _runtimes(self) -> list[EventsRuntime | SagasRuntime]:
        return [runtime for runtime in (self._events, self._sagas) if runtime is not None]

    async def _provide(self, module: Module, wiring: Wiring) -> None:
        once = await self._once(module)
        for contract in module.provides:
            service: object | None = self._replace.get(contract)
            models = self._models_of(module, contract)
            if service is None and models:
                service = await self._models_here().open(models, wiring)
            if service is None:
                (cls,) = [cls for cls in module.services if issubclass(cls, contract)]
                service = await wiring.build(cls)
            self.mesh.provide(module.name, contract, service, wrap=once.wrap if once is not None else None)
        if self._events is not None and module.name in self._events.logs:
            from seamline.events.reading import log_contract

            self.mesh.provide(module.name, log_contract(module.name), self._events.log_service(module.name))
        if module.views:
            from seamline.events.streams.service import ViewsService
            from seamline.events.streams.views import views_contract

            service = ViewsService(self._database(module))
            self._views.append(service)
            self.mesh.provide(module.name, views_contract(module.name), service)

    def _models_of(self, module: Module, contract: type[Contract]) -> Sequence[ModelType]:
        """What answers a contract: the module's models, or the engine elsewhere that the settings name instead."""
        declared = [model for model in module.models if model.contract is contract]
        told = self.settings.models.of(contract.__name__)
        if told.engine or told.engine_variable:
            from seamline.models.remote.elsewhere import instead

            model = instead(contract, told, self.settings.folder, declared)
            if model is not None:
                return [model]
        return declared

    async def _once(self, module: Module) -> Once | None:
        """What keeps the answers to calls with a key, where the module has somewhere to keep them."""
        database = self._databases.get(module.name)
        if database is None or not module.provides:
            return None
        from seamline.sagas.once import Once

        once = Once(database, self.clock, keep_s=self.settings.events.inbox_s)
        await once.start()
        return once

    def _platform(self) -> Platform:
        def stubs(module: Module) -> Callable[[type[Contract]], Contract]:
            return lambda contract: self.stub(contract, module.name)

        return {
            Contract: stubs,
            **dict.fromkeys(database_class(), self._database),
            **dict.fromkeys(events_classes(), lambda module: self._events_runtime().events_of(module.name)),
            **dict.fromkeys(sagas_classes(), lambda module: self._sagas_runtime().sagas_of(module)),
            **dict.fromkeys(language_models_class(), lambda module: self._ai.inside(module.name)),
            **dict.fromkeys(datasets_class(), lambda _: self._models_here().datasets),
            **dict.fromkeys(secrets_class(), self._secrets_of),
            **dict.fromkeys(views_class(), self._views_for),
            Clock: lambda _: self.clock,
            Settings: lambda _: self.settings,
            Module: lambda module: module,
            Principal: lambda _: Principal(),
        }

    def _views_for(self, module: Module) -> Views:
        from seamline.events.streams.views import Views, ViewsContract, views_contract

        def stub(owner: str) -> ViewsContract:
            contract = views_contract(owner)
            self.mesh.know(contract, owner)
            return self.stub(contract, module.name)

        return Views(self.settings.modules, stub)

    def _database(self, module: Module) -> Database:
        from seamline.kernel.store import Database, set_scope_source, sqlite_url

        set_scope_source(call_as_a_whole)
        database = self._databases.get(module.name)
        if database is None:
            url = self.settings.data.url_of(module.name) or sqlite_url(self.data, module.name)
            database = self._databases[module.name] = Database(url, module.name, module.tables)
            database.statements.tell(self.mesh.tracer)
        return database

    @property
    def databases(self) -> Mapping[str, Database]:
        """Those of the modules hosted here, by module."""
        return self._databases

    # Serve.

    def stub(self, contract: type[C], caller: str) -> C:
        """A stub of ``contract`` that calls as the module ``caller``."""
        return self.port.stub(contract, caller)

    async def serve_mesh(self, sock: socket.socket) -> None:
        """Take calls of other processes on a bound socket."""
        await self.mesh.port.listen(sock)

    async def serve_public(self, sock: socket.socket, ai: socket.socket | None = None) -> None:
        """Let the public in on a bound socket: the gateway lives in this process, and the AI gateway on ``ai``."""
        from seamline.gateway.gateway import Gateway

        settings, folder = self.settings.gateway, self.settings.folder
        if settings.tls_certificate:  # as everything in seamline.toml, relative to its folder
            certificate, key = str(folder / settings.tls_certificate), str(folder / settings.tls_key)
            settings = dataclasses.replace(settings, tls_certificate=certificate, tls_key=key)
        door = make_door(self.settings, self.data, self.clock, self.audit, self.mesh.revocations, self._limits)
        client_ca = str(folder / self.settings.auth.client_ca) if self.settings.auth.client_ca else ""
        self._gateway = Gateway(
            settings, self._gateway_routes(), self._faces.app, door=door, client_ca=client_ca,
            hosts=own_hosts(self.settings), audit=partial(self.audit.write, "limit"),
            limiter=make_limiter(self.settings, self.data, self.clock, self._limits),
            connections_per_address_max=self.settings.limits.connections_per_address_max, tracer=self.mesh.tracer,
        )  # fmt: skip
        await self._gateway.serve(sock)
        if ai is not None:
            await self._ai.serve(ai)

    def mounts(self) -> list[PublicRoute]:
        """The public faces of the modules hosted here."""
        return [
            PublicRoute(module.name, mount.at, mount.host or "") for module in self.modules for mount in module.mounts
        ]

    def set_routes(self, routes: Iterable[PublicRoute]) -> None:
        """Tell the gateway the public faces of the modules hosted elsewhere."""
        self._routes = list(routes)
        if self._gateway is not None:
            self._gateway.set_routes(self._gateway_routes())

    def _gateway_routes(self) -> list[Any]:
        return self._faces.routes(self.settings.gateway, [*self.mounts(), *self._routes])

    def set_endpoints(self, table: Mapping[str, Iterable[Endpoint]]) -> None:
        """Where modules run; the whole table. Modules hosted here are called here."""
        hosted = {module.name for module in self.modules}
        self.mesh.set_endpoints({name: list(found) for name, found in table.items() if name not in hosted})

    def inject(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the rules given while running, by method or contract."""
        self.mesh.override(rules)

    def reload_policy(self) -> None:
        """Read the policy folder again. Raises PolicyError, and the old policy stays in force."""
        self.mesh.policy.reload()
        self.mesh.refresh()
        if self._secret_rules is not None and self._secrets is not None:
            self._secret_rules.reload()
            self._secrets.wake("")

    def wake(self, topics: Iterable[str]) -> None:
        """Another process that hosts the same modules has written something; see ``announce``."""
        for topic in topics:
            room, _, name = topic.partition("/")
            runtime = {"events": self._events, "sagas": self._sagas, "secrets": self._secrets}.get(room)
            if runtime is not None:
                runtime.wake(name)

    async def ask(self, room: str, operation: str, arguments: dict[str, Any]) -> Any:
        """What people ask of modules hosted here, of their ``events`` and ``sagas``, and of policies."""
        if room == "policies":
            return PolicyOperations(self.mesh.policy).run(operation, arguments)
        if room == "modules":
            from seamline.run.trying import Trying  # what hardly any process ever needs

            return await Trying(self.application, self.mesh).ask(operation, arguments)
        if room == "models" and operation in _OF_VERSIONS:
            return None if self._models is None else await self._models.ask(operation, arguments)
        if room == "models":
            return await self._models_room().ask(operation, arguments)
        runtime = {"events": self._events, "sagas": self._sagas, "secrets": self._secrets}.get(room)
        return None if runtime is None else await runtime.admin(operation, arguments)

    def _models_room(self) -> ModelRoom:
        if self._model_room is None:
            from seamline.run.models.room import ModelRoom
            from seamline.run.trying import Trying

            trying = Trying(self.application, self.mesh)
            self._model_room = ModelRoom(
                self.application.contracts,
                self.stats,
                trying,
                self._ai.by_hand,
                self._models_work,
            )
        return self._model_room

    async def _models_work(self, job: str, arguments: Mapping[str, Any], say: Say) -> dict[str, Any]:
        return await self._models_here().work(job, arguments, say)

    def take_flows(self) -> list[Flow]:
        """What happened on each edge since the last time: calls, requests, events, steps of sagas."""
        return self.mesh.tracer.flows.take()

    def stats(self) -> dict[str, Any]:
        """Calls by edge, requests by route, and what is under way; for JSON."""
        found = self.mesh.stats()
        if self._events is not None:
            found["events"] = self._events.stats()
        if self._sagas is not None:
            found["sagas"] = self._sagas.stats()
        if self._models is not None:
            found["models"] = self._models.runtime.stats()
        if ai := self._ai.stats():
            found["ai_gateway"] = ai
        if self._gateway is not None:
            found["gateway"] = self._gateway.stats()
        return found

    # Stop.

    async def drain_public(self, timeout_s: float) -> bool:
        """Stop letting the public in; finish what came. False when time ran out."""
        return await self._gateway.drain(timeout_s) if self._gateway is not None else True

    async def drain(self, timeout_s: float) -> bool:
        """Finish what is under way, the public's requests first, since they make the calls. False when time ran out."""
        end = asyncio.get_running_loop().time() + timeout_s

        def left() -> float:
            return max(end - asyncio.get_running_loop().time(), 0.1)

        async def calls() -> bool:
            public = all(await asyncio.gather(self.drain_public(timeout_s), self._ai.drain(timeout_s)))
            return await self.mesh.drain(left()) and public

        async def events() -> bool:
            return self._events is None or await self._events.drain(timeout_s)

        # Sagas come last: requests under way may wait for one that runs here.
        finished = await asyncio.gather(calls(), events())
        sagas = self._sagas is None or await self._sagas.drain(left())
        return all(finished) and sagas

    async def stop(self) -> None:
        """Run the shutdown hooks and close everything."""
        if self._model_room is not None:
            await self._model_room.close()
        if self._gateway is not None:
            await self._gateway.stop()
        for module in reversed(self.modules):
            await self._faces.stop(module)
            for hook in module.shutdowns:
                try:
                    await self._wirings[module.name].build(hook)
                except Exception:
                    _log.exception("a shutdown hook of module %r failed", module.name)
        for runtime in reversed(self._runtimes()):
            await runtime.stop()
        await self._ai.stop()
        await self.mesh.stop()
        if self._models is not None:
            await self._models.runtime.stop()
        for service in self._views:
            await service.close()
        for database in self._databases.values():
            await database.close()
        if self._secrets is not None:
            await self._secrets.stop()
        if self._secrets_audit is not None:
            self._secrets_audit.close()
        self.audit.close()

    def take_measures(self) -> list[Measure]:
        """How long databases were waited for, how many events wait, how models work and score, and what the application
        measured."""
        OPENTELEMETRY.join(self.mesh.tracer)
        waits = [measure for database in self._databases.values() for measure in database.statements.take()]
        lags = self._events.take_measures() if self._events is not None else []
        models = self._models.runtime.take_measures() if self._models is not None else []
        return waits + lags + models + GAUGES.take() + OPENTELEMETRY.take()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _nobody_else(_: str) -> None:
    """The process stands alone."""
