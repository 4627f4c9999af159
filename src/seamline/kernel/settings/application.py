"""The whole of ``seamline.toml``: what each section may hold, and how the sections must agree."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.admin import AdminSettings, read_admin
from seamline.kernel.settings.ai_gateway import AiGatewaySettings, read_ai_gateway
from seamline.kernel.settings.audit import AuditSettings
from seamline.kernel.settings.auth import AuthSettings, read_auth
from seamline.kernel.settings.errors import (
    BadPlacementError,
    BadValueError,
    DataFolderUnusableError,
    SettingsMissingError,
    SettingsSyntaxError,
    UnknownKeyError,
    WrongTypeError,
)
from seamline.kernel.settings.federation import FederationSettings
from seamline.kernel.settings.limits import LimitsSettings, read_limits
from seamline.kernel.settings.models import ModelsSettings, read_models
from seamline.kernel.settings.observe import ObserveSettings, TelemetrySettings, read_observe, read_telemetry
from seamline.kernel.settings.policy import PolicySettings
from seamline.kernel.settings.secrets import SecretsSettings, for_workers
from seamline.kernel.settings.sections import (
    AppSettings,
    DataSettings,
    EventsSettings,
    GatewaySettings,
    IdentitySettings,
    MeshRules,
    MeshSettings,
    ModuleData,
    RouteSettings,
    RunSettings,
    SagasSettings,
    WebhookSettings,
)
from seamline.kernel.settings.sidecars import SidecarSettings
from seamline.kernel.settings.tables import FILE_NAME, TableReader, choices

_SECTIONS = (
    "app",
    "topologies",
    "replicas",
    "gateway",
    "auth",
    "limits",
    "policy",
    "audit",
    "admin",
    "data",
    "events",
    "sagas",
    "telemetry",
    "observe",
    "identity",
    "secrets",
    "sidecars",
    "ai_gateway",
    "models",
    "run",
    "mesh",
)
_PLAIN_SECTIONS = {
    "app": AppSettings,
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "limits": LimitsSettings,
    "policy": PolicySettings,
    "audit": AuditSettings,
    "admin": AdminSettings,
    "events": EventsSettings,
    "sagas": SagasSettings,
    "telemetry": TelemetrySettings,
    "observe": ObserveSettings,
    "identity": IdentitySettings,
    "secrets": SecretsSettings,
    "ai_gateway": AiGatewaySettings,
    "run": RunSettings,
}
_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*")
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_RULE_KEYS = frozenset(item.name for item in fields(MeshRules))
_CONNECTION_KEYS = frozenset(item.name for item in fields(MeshSettings)) - {"default", "contracts", "methods"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything in ``seamline.toml``, with the environment's overrides applied."""

    folder: Path
    app: AppSettings
    topologies: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Name to groups of modules, ``"*"`` spelt out; ``monolith`` and ``services`` exist always."""
    replicas: Mapping[str, int]
    gateway: GatewaySettings
    auth: AuthSettings
    limits: LimitsSettings
    policy: PolicySettings
    audit: AuditSettings
    admin: AdminSettings
    data: DataSettings
    events: EventsSettings
    sagas: SagasSettings
    telemetry: TelemetrySettings
    observe: ObserveSettings
    identity: IdentitySettings
    secrets: SecretsSettings
    sidecars: Mapping[str, SidecarSettings]
    """By module."""
    ai_gateway: AiGatewaySettings
    models: ModelsSettings
    run: RunSettings
    mesh: MeshSettings

    @property
    def modules(self) -> Mapping[str, str]:
        """The name of each module (the last part of its package) to its package."""
        return {package.rpartition(".")[2]: package for package in self.app.modules}

    @property
    def trust_domain(self) -> str:
        return self.app.trust_domain or f"{self.app.name}.local"

    @property
    def foreign_modules(self) -> tuple[str, ...]:
        """The modules of other trust domains that policy may name: ``<trust domain>/<application>/<module>``."""
        return tuple(f"{domain}/{name}" for domain, each in self.identity.federation.items() for name in each.modules)

    @property
    def policy_folder(self) -> Path:
        return self.folder / self.app.policy

    @property
    def data_folder(self) -> Path:
        return self.folder / self.app.data

    def prepare_data_folder(self) -> Path:
        """Make the data directory, for its owner only, and prove that it can be written.

        Raises DataFolderUnusableError.
        """
        folder = self.data_folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise DataFolderUnusableError(
                f"the data directory {str(folder)!r} cannot be written ({error.strerror})",
                "Give its owner the right to write, or name another with data = ... under [app].",
                place=f"{FILE_NAME} [app] data",
            ) from error
        return folder

    @staticmethod
    def load(folder: Path | str, environment: Mapping[str, str] | None = None) -> Settings:
        """Read ``folder/seamline.toml``. Raises a SettingsError that names the place and the remedy."""
        home = Path(folder).resolve()
        text = _read(home / FILE_NAME)
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"at line (\d+), column (\d+)", str(error))
            place = f"{FILE_NAME}:{where[1]}:{where[2]}" if where else FILE_NAME
            fact = re.sub(r" \(at .*\)$", "", str(error))
            raise SettingsSyntaxError(f"not TOML: {fact}", "Correct that line.", place=place) from error
        variables = environment if environment is not None else os.environ  # noqa: TID251 (the one place)
        return _ApplicationReader(text, variables).settings(home, tables)


def read_secret(variable: str, environment: Mapping[str, str] | None = None) -> str:
    """The text of an environment variable that holds a secret. Raises BadValueError if it is unset or empty."""
    found = (environment if environment is not None else os.environ).get(variable, "")  # noqa: TID251 (the one place)
    if not found.strip():
        raise BadValueError(
            "the variable is not set, and a secret was to be in it",
            "Set it where the application is started.",
            place=f"environment {variable}",
        )
    return found


def read_variable(variable: str, environment: Mapping[str, str] | None = None) -> str:
    """The text of an environment variable; empty if it is unset."""
    return (environment if environment is not None else os.environ).get(variable, "").strip()  # noqa: TID251 (the one place)


def workers_environment(settings: Settings) -> dict[str, str]:
    """The environment of this process, without what is the supervisor's alone."""
    return for_workers(os.environ, dynamic_credentials=settings.data.credentials == "dynamic")  # noqa: TID251


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsMissingError(
            f"there is no {FILE_NAME} in {str(path.parent)!r}",
            "Name the application's folder with --app, or write the file: [app] name and modules are enough.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsMissingError(f"{str(path)!r} cannot be read: {error}", "It must be a UTF-8 file.") from error


class _ApplicationReader(TableReader):
    """Reads the sections in turn and checks them against the list of modules."""

    def settings(self, folder: Path, tables: dict[str, Any]) -> Settings:
        self.known(tables, _SECTIONS, "")
        for name, kind in _PLAIN_SECTIONS.items():
            self.unread_overrides(name, [item.name for item in fields(kind)])
        app = self._app(self.table(tables, "app"))
        names = [package.rpartition(".")[2] for package in app.modules]
        gateway = self._gateway(self.table(tables, "gateway"), names)
        settings = Settings(
            folder=folder,
            app=app,
            topologies=self._topologies(self.table(tables, "topologies"), names),
            replicas=self._replicas(self.table(tables, "replicas"), names),
            gateway=gateway,
            auth=read_auth(self, self.table(tables, "auth"), gateway.address, tls=bool(gateway.tls_certificate)),
            limits=read_limits(self, self.table(tables, "limits")),
            policy=self.section(PolicySettings, "policy", self.table(tables, "policy")),
            audit=self._audit(self.table(tables, "audit")),
            admin=read_admin(self, self.table(tables, "admin")),
            data=self._data(self.table(tables, "data"), names),
            events=self._events(self.table(tables, "events"), names),
            sagas=self.section(SagasSettings, "sagas", self.table(tables, "sagas")),
            telemetry=read_telemetry(self, self.table(tables, "telemetry")),
            observe=read_observe(self, self.table(tables, "observe")),
            identity=self._identity(self.table(tables, "identity"), app),
            secrets=self.section(SecretsSettings, "secrets", self.table(tables, "secrets")),
            sidecars=self._sidecars(self.table(tables, "sidecars"), names),
            ai_gateway=read_ai_gateway(self, self.table(tables, "ai_gateway")),
            models=read_models(self, self.table(tables, "models")),
            run=self.section(RunSettings, "run", self.table(tables, "run")),
            mesh=self._mesh(self.table(tables, "mesh")),
        )
        if app.topology not in settings.topologies:
            raise BadValueError(
                f"there is no topology {app.topology!r}",
                choices(app.topology, settings.topologies),
                place=self.place("app", "topology"),
            )
        return settings

    def _audit(self, table: dict[str, Any]) -> AuditSettings:
        audit = self.section(AuditSettings, "audit", table)
        if audit.files_max < 2 or audit.checkpoint_s < 0.1:
            key = "files_max" if audit.files_max < 2 else "checkpoint_s"
            raise BadValueError(
                f"{key} is {getattr(audit, key)!r}", "At least 2 files, and 0.1 s.", place=self.place("audit", key)
            )
        return audit

    def _app(self, table: dict[str, Any]) -> AppSettings:
        if "name" not in table and "APP_NAME" not in self._overrides:
            raise BadValueError("[app] has no name", 'Add name = "..." under [app].', place=FILE_NAME)
        app = self.section(AppSettings, "app", table)
        if not _NAME.fullmatch(app.name):
            raise BadValueError(
                f"name is {app.name!r}",
                "It becomes part of URLs and identities: small letters, digits, '-' and '_', a letter first.",
                place=self.place("app", "name"),
            )
        seen: dict[str, str] = {}
        for package in app.modules:
            name = package.rpartition(".")[2]
            if not _NAME.fullmatch(name) or not all(part.isidentifier() for part in package.split(".")):
                raise BadValueError(
                    f"{package!r} is not the dotted name of a Python package",
                    "Write it as it is imported, in small letters.",
                    place=self.place("app", "modules"),
                )
            if name in seen:
                raise BadValueError(
                    f"{package!r} and {seen[name]!r} are both called {name!r}",
                    "A module is called by the last part of its package: rename one.",
                    place=self.place("app", "modules"),
                )
            seen[name] = package
        return app

    def _topologies(self, tables: dict[str, Any], names: list[str]) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        found: dict[str, Mapping[str, tuple[str, ...]]] = {
            "monolith": {"all": tuple(names)},
            "services": {name: (name,) for name in names},
        }
        for topology, groups in tables.items():
            place = self.place("topologies", topology)
            if topology in found:
                raise BadPlacementError(
                    f"the topology {topology!r} exists always", "Give yours another name.", place=place
                )
            if not isinstance(groups, dict):
                raise WrongTypeError(
                    f"{topology!r} is {groups!r}, not a table",
                    f'Write [topologies.{topology}] and below it group = ["module", ...].',
                    place=place,
                )
            found[topology] = self._groups(topology, cast("dict[str, Any]", groups), names)
        return MappingProxyType(found)

    def _groups(self, topology: str, groups: dict[str, Any], names: list[str]) -> dict[str, tuple[str, ...]]:
        section = f"topologies.{topology}"
        placed: dict[str, str] = {}
        rest: list[str] = []
        for group, members in groups.items():
            place = self.place(section, group)
            if members in ("*", ["*"]):
                rest.append(group)
                continue
            for name in cast("tuple[str, ...]", self.value(tuple[str, ...], members, place, group)):
                if name not in names:
                    raise BadPlacementError(f"there is no module {name!r}", choices(name, names), place=place)
                if name in placed:
                    raise BadPlacementError(
                        f"module {name!r} is in {placed[name]!r} and in {group!r}",
                        "A module has one place in a topology: take it out of one of them.",
                        place=place,
                    )
                placed[name] = group
            if group in names and placed.get(group) != group:
                raise BadPlacementError(
                    f"the group {group!r} is called like a module that it does not hold",
                    "Rename the group, or put the module into it.",
                    place=place,
                )
        left = [name for name in names if name not in placed]
        if len(rest) > 1:
            raise BadPlacementError(
                f"{rest[0]!r} and {rest[1]!r} both take the rest", 'Keep one "*".', place=self.place(section)
            )
        if left and not rest:
            raise BadPlacementError(
                f"the topology {topology!r} leaves out {', '.join(map(repr, left))}",
                'Put it into a group, or add a group with "*" for the rest.',
                place=self.place(section),
            )
        placed.update(dict.fromkeys(left, rest[0]) if rest else {})
        return {
            group: members for group in groups if (members := tuple(name for name in names if placed[name] == group))
        }

    def _replicas(self, table: dict[str, Any], names: list[str]) -> Mapping[str, int]:
        for name, given in table.items():
            if name not in names:
                raise BadPlacementError(
                    f"there is no module {name!r}", choices(name, names), place=self.place("replicas", name)
                )
            count = self.value(int, given, self.place("replicas", name), name)
            if count < 1:
                raise BadValueError(
                    f"{name} = {count!r}",
                    "A module needs one replica or more.",
                    place=self.place("replicas", name),
                )
        counts = dict(table)
        for name in names:
            if override := self.override(f"REPLICAS_{name.upper().replace('-', '_')}"):
                counts[name] = self.from_environment(int, *override)
        return MappingProxyType(counts)

    def _gateway(self, table: dict[str, Any], names: list[str]) -> GatewaySettings:
        table = dict(table)
        routes = table.pop("routes", [])
        if not isinstance(routes, list):
            raise WrongTypeError(
                f"routes is {routes!r}",
                "Write [[gateway.routes]] tables.",
                place=self.place("gateway", "routes"),
            )
        read: list[RouteSettings] = []
        for route in cast("list[Any]", routes):
            if not isinstance(route, dict) or "module" not in route:
                raise WrongTypeError(
                    f"a route is {route!r}",
                    'A route is a table with at least module = "...".',
                    place=self.place("gateway.routes"),
                )
            entry = self.section(RouteSettings, "gateway.routes", cast("dict[str, Any]", route))
            if entry.module not in names:
                raise BadValueError(
                    f"there is no module {entry.module!r}",
                    choices(entry.module, names),
                    place=self.place("gateway.routes", "module"),
                )
            read.append(entry)
        gateway = replace(self.section(GatewaySettings, "gateway", table, {"routes"}), routes=tuple(read))
        host, _, port = gateway.listen.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise BadValueError(
                f"listen is {gateway.listen!r}",
                "Write host:port, such as 127.0.0.1:8080; port 0 takes a free one.",
                place=self.place("gateway", "listen"),
            )
        for network in gateway.trusted_proxies:
            try:
                ip_network(network, strict=False)
            except ValueError:
                raise BadValueError(
                    f"{network!r} is not an address or a network",
                    "Write it like 10.0.0.7 or 10.0.0.0/8.",
                    place=self.place("gateway", "trusted_proxies"),
                ) from None
        if bool(gateway.tls_certificate) != bool(gateway.tls_key):
            raise BadValueError(
                "one of tls_certificate and tls_key is set without the other",
                "TLS needs both files.",
                place=self.place("gateway", "tls_certificate"),
            )
        return gateway

    def _events(self, table: dict[str, Any], names: list[str]) -> EventsSettings:
        table = dict(table)
        webhooks = table.pop("webhooks", [])
        if not isinstance(webhooks, list) or not all(isinstance(each, dict) for each in cast("list[Any]", webhooks)):
            raise WrongTypeError(
                f"webhooks is {webhooks!r}", "Write [[events.webhooks]] tables.", place=self.place("events", "webhooks")
            )
        read = [
            self._webhook(
                WebhookSettings(**self.values(WebhookSettings, "events.webhooks", each, overrides=False)), names
            )
            for each in cast("list[dict[str, Any]]", webhooks)
        ]
        twice = [each.name for place, each in enumerate(read) if each.name in {other.name for other in read[:place]}]
        if twice:
            raise BadValueError(
                f"two webhooks are called {twice[0]!r}",
                "A webhook's name is that of its consumer group: rename one.",
                place=self.place("events.webhooks", "name"),
            )
        return replace(self.section(EventsSettings, "events", table, {"webhooks"}), webhooks=tuple(read))

    def _webhook(self, webhook: WebhookSettings, names: list[str]) -> WebhookSettings:
        def refused(key: str, remedy: str) -> BadValueError:
            return BadValueError(
                f"{key} is {getattr(webhook, key)!r}", remedy, place=self.place("events.webhooks", key)
            )

        if webhook.module not in names:
            raise refused("module", choices(webhook.module, names))
        if not _NAME.fullmatch(webhook.name):
            raise refused("name", "Small letters, digits, '-' and '_', a letter first.")
        if not webhook.events or webhook.attempts < 1 or webhook.concurrency < 1 or webhook.timeout_s <= 0:
            key = "events" if not webhook.events else "attempts" if webhook.attempts < 1 else "concurrency"
            raise refused("timeout_s" if webhook.timeout_s <= 0 else key, "Name one at least.")
        url = urlsplit(webhook.url)
        if url.scheme not in (("https", "http") if webhook.private else ("https",)) or not url.hostname or url.username:
            raise refused("url", "Write https://host/path, without a user; http only where private = true.")
        if not _VARIABLE.fullmatch(webhook.secret):
            raise BadValueError(
                "secret is not the name of an environment variable",
                "Write the name, such as PARTNER_WEBHOOK_SECRET, and keep the secret itself in the environment.",
                place=self.place("events.webhooks", "secret"),
            )
        return webhook

    def _data(self, table: dict[str, Any], names: list[str]) -> DataSettings:
        table = dict(table)
        own = self.table(table, "modules", "data.modules")
        table.pop("modules", None)
        found: dict[str, ModuleData] = {}
        for name in own:
            if name not in names:
                raise BadValueError(
                    f"there is no module {name!r}",
                    choices(name, names),
                    place=self.place(f"data.modules.{name}"),
                )
        for name in names:
            section = f"data.modules.{name}"
            entry = self.section(ModuleData, section, self.table(own, name, section))
            if entry != ModuleData():
                found[name] = entry
        section = self.section(DataSettings, "data", table, {"modules"})
        return replace(section, modules=MappingProxyType(found))

    def _identity(self, table: dict[str, Any], app: AppSettings) -> IdentitySettings:
        domains = self.table(table, "federation", "identity.federation")
        own = {key: value for key, value in table.items() if key != "federation"}
        identity = self.section(IdentitySettings, "identity", own, {"federation"})
        found: dict[str, FederationSettings] = {}
        for domain in domains:
            section = f"identity.federation.{domain}"
            place = self.place(section)
            each = self.section(FederationSettings, section, self.table(domains, domain, section))
            if not _DOMAIN.fullmatch(domain) or domain == (app.trust_domain or f"{app.name}.local"):
                raise BadValueError(f"{domain!r} is not another trust domain", "Name that of the other.", place=place)
            if not each.url.startswith("https://"):
                raise BadValueError(f"url is {each.url!r}", "A bundle is fetched over https.", place=place)
            if (each.profile == "https_spiffe") != bool(each.endpoint_id and each.bundle):
                raise BadValueError(
                    f"profile is {each.profile!r}, endpoint_id {each.endpoint_id!r} and bundle {each.bundle!r}",
                    "https_spiffe needs the endpoint's SPIFFE ID and a bundle to begin with; https_web neither.",
                    place=place,
                )
            if any(name.count("/") != 1 for name in each.modules):
                raise BadValueError(f"modules are {list(each.modules)}", "Write <application>/<module>.", place=place)
            found[domain] = each
        return replace(identity, federation=MappingProxyType(found))

    def _sidecars(self, tables: dict[str, Any], names: list[str]) -> Mapping[str, SidecarSettings]:
        found: dict[str, SidecarSettings] = {}
        for name in tables:
            section = f"sidecars.{name}"
            place = self.place(section)
            if name not in names:
                raise BadPlacementError(f"there is no module {name!r}", choices(name, names), place=place)
            found[name] = each = self.section(SidecarSettings, section, self.table(tables, name, section))
            if bool(each.command) == bool(each.port) or each.port > 65535:
                raise BadValueError(
                    f"{name!r} has a command {list(each.command)} and port {each.port}",
                    "Give the command that starts the service, or the port on which it listens already.",
                    place=place,
                )
        return MappingProxyType(found)

    def _mesh(self, table: dict[str, Any]) -> MeshSettings:
        table = dict(table)
        contracts = self.table(table, "contracts", "mesh.contracts")
        methods = self.table(table, "methods", "mesh.methods")
        table.pop("contracts", None)
        table.pop("methods", None)
        self.known(table, [*_CONNECTION_KEYS, *_RULE_KEYS, "contracts", "methods"], "mesh")
        self.unread_overrides("mesh", [*_CONNECTION_KEYS, *_RULE_KEYS])
        connection = {key: value for key, value in table.items() if key in _CONNECTION_KEYS}
        default = {key: value for key, value in table.items() if key not in _CONNECTION_KEYS}
        own = self.values(MeshSettings, "mesh", connection, _CONNECTION_KEYS)
        return MeshSettings(
            **own,
            default=MeshRules(**self.values(MeshRules, "mesh", default)),
            contracts=self._rule_tables("mesh.contracts", contracts),
            methods=self._rule_tables("mesh.methods", methods),
        )

    def _rule_tables(self, section: str, tables: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name in tables:
            inner = f"{section}.{name}"
            if section == "mesh.methods" and name.count(".") != 1:
                raise BadValueError(
                    f"{name!r} is not the name of a method",
                    'Quote it: [mesh.methods."Payments.charge"].',
                    place=self.place(inner),
                )
            table = self.table(tables, name, inner)
            for key in table:
                if key in _CONNECTION_KEYS:
                    raise UnknownKeyError(
                        f"{key!r} belongs to the connection, not to one method",
                        "Move it to [mesh].",
                        place=self.place(inner, key),
                    )
            self.known(table, _RULE_KEYS, inner)
            found[name] = MappingProxyType(self.values(MeshRules, inner, table, overrides=False))
        return MappingProxyType(found)
