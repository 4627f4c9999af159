"""The sections of ``seamline.toml`` as frozen values, with their defaults.

Units stand last in the names of keys, and bound their values: ``_percent`` is 0 to 100, ``_ratio`` 0 to 1,
and no number is negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from seamline.kernel.settings.federation import FederationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """``[app]``: what the application is called and what it is made of."""

    name: str
    trust_domain: str = ""
    modules: tuple[str, ...] = ()
    policy: str = "policy"
    data: str = ".seamline"
    isolation: Literal["none", "copy"] = "none"
    topology: str = "monolith"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """One entry of ``[gateway] routes``: public requests that match go to ``module``."""

    module: str
    path: str = "/"
    host: str = ""
    timeout_s: float = 0
    body_bytes_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """``[gateway]``: the public side. A zero in a route means the value given here."""

    listen: str = "127.0.0.1:8080"
    hosts: tuple[str, ...] = ()
    """Names that the gateway answers to; empty is those of the routes and of ``[auth] public_url``. Loopback names and
    the address that a connection came to always count."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose word on where a request comes from is believed (``x-forwarded-for``)."""
    body_bytes_max: int = 10 * 1024 * 1024
    header_bytes_max: int = 32 * 1024
    head_timeout_s: float = 10
    request_timeout_s: float = 60
    idle_timeout_s: float = 75
    connections_max: int = 10_000
    websocket_message_bytes_max: int = 1024 * 1024
    compression: bool = True
    compression_bytes_min: int = 1024
    security_headers: bool = True
    cors_origins: tuple[str, ...] = ()
    cors_methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    cors_headers: tuple[str, ...] = ("content-type", "authorization")
    cors_credentials: bool = False
    cors_age_max_s: int = 600
    tls_certificate: str = ""
    tls_key: str = ""
    routes: tuple[RouteSettings, ...] = ()

    @property
    def address(self) -> tuple[str, int]:
        """``listen`` as host and port; an IPv6 host stands in brackets."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleData:
    """``[data.modules.<module>]``."""

    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """``[data]``: an empty ``url`` is a SQLite file for each module under the data directory."""

    url: str = ""
    credentials: Literal["static", "dynamic"] = "static"
    """``dynamic``: in PostgreSQL each process has a login of its own for each module, which is replaced while it runs;
    the user of the url stays with the supervisor."""
    credentials_s: float = 3600
    """How long such a login is valid; at half of it there is a new one."""
    modules: Mapping[str, ModuleData] = field(default_factory=lambda: MappingProxyType({}))

    def url_of(self, module: str) -> str:
        own = self.modules.get(module)
        return own.url if own and own.url else self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """One entry of ``[events] webhooks``: events that somebody outside is told of."""

    name: str
    """Of the consumer group that sends; a new name begins anew."""
    module: str
    """Whose events."""
    events: tuple[str, ...]
    """Their names."""
    url: str
    secret: str
    """The name of the environment variable that holds the secret; two secrets with a space between, while one is
    replaced by the other."""
    private: bool = False
    """The url may lead into a private network, and need not be https."""
    timeout_s: float = 15
    attempts: int = 10
    concurrency: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsSettings:
    """``[events]``: an empty ``broker`` is the log in each module's own database.

    A broker's url holds its password: it belongs in the environment (``SEAMLINE_EVENTS_BROKER``).
    """

    broker: str = field(default="", repr=False)
    durability: Literal["durable", "relaxed"] = "durable"
    """``relaxed`` acknowledges an event that is published outside of a transaction before it is on disk."""
    partitions: int = 16
    """Of each topic, over which the processes of a consumer group are spread. The same for the life of the data."""
    retention_s: float = 604_800
    retention_bytes: int = 1024 * 1024 * 1024
    """Of each module's log. 0 keeps everything."""
    inbox_s: float = 604_800
    """For how long it is remembered that an event was handled, or a call with an idempotency key done."""
    webhooks: tuple[WebhookSettings, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SagasSettings:
    """``[sagas]``."""

    running_max: int = 1000
    """Sagas at work at once in each process; others wait their turn."""
    lease_s: float = 3.0
    """A process that has not been heard of for so long has lost its sagas to another."""
    idle_s: float = 5.0
    """A saga that waits longer leaves memory until it goes on."""
    step_attempts: int = 10
    step_backoff_s: float = 0.1
    """The pause after a step's first failure; it doubles with each, up to 30 s."""
    stuck_after_s: float = 300
    """A saga whose step or compensation keeps failing for so long is shown as stuck."""
    retention_s: float = 2_592_000
    """Of a saga's journal after its end. 0 keeps it for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """``[identity]``: certificates are renewed at half of their lifetime.

    ``passphrase`` seals the root key at rest; it belongs in the environment (``SEAMLINE_IDENTITY_PASSPHRASE``).
    """

    source: Literal["built-in", "spire"] = "built-in"
    socket: str = "unix:///tmp/spire-agent/public/api.sock"
    """Of SPIRE's agent."""
    certificate_lifetime_s: int = 3600
    passphrase: str = field(default="", repr=False)
    bundle_listen: str = ""
    """``host:port`` where other trust domains fetch our bundle; nowhere when empty."""
    bundle_refresh_s: int = 300
    """How soon they are asked to fetch it anew."""
    federation: Mapping[str, FederationSettings] = field(default_factory=lambda: MappingProxyType({}))
    """By trust domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """``[run]``: how workloads are started, watched, restarted and stopped."""

    ready_timeout_s: float = 60
    drain_timeout_s: float = 15
    heartbeat_s: float = 1
    hung_after_s: float = 60
    backoff_first_s: float = 0.2
    backoff_longest_s: float = 30
    crash_loop_crashes: int = 5
    crash_loop_window_s: float = 60
    fork: bool = True
    """Several workers are copies of one process that has imported the platform (Linux)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRules:
    """How calls of one method behave. Each may stand at ``[mesh]``, at a contract or at a method."""

    timeout_s: float = 10
    retries: int = 2
    retry_budget_ratio: float = 0.2
    retry_budget_min_per_s: float = 10
    retry_backoff_ms: float = 5
    wait_for_ready_s: float = 5
    """How long a call waits for a callee that nobody can reach now, as while its process is replaced."""
    hedge_after_ms: float = 0
    """0 is off; only a ``@readonly`` method is ever hedged."""
    circuit_error_ratio: float = 0.5
    circuit_calls_min: int = 20
    circuit_window_s: float = 10
    circuit_open_s: float = 5
    outlier_failures: int = 5
    """In a row."""
    outlier_eject_s: float = 10
    outlier_eject_max_ratio: float = 0.5
    concurrency_max: int = 0
    """0 leaves it to the adaptive limit."""
    concurrency_adaptive: bool = True
    priority: Literal["critical", "normal", "sheddable"] = "normal"
    mirror_percent: float = 0
    mirror_to: str = ""
    """A version, or a workload."""
    canary: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Version to weight."""
    inject_delay_ms: float = 0
    inject_delay_percent: float = 0
    inject_error: str = ""
    inject_error_percent: float = 0
    inject_drop_percent: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """``[mesh]``: the connection's own keys, and the rules of calls by method, by contract, or for all."""

    wire: Literal["frames", "http"] = "frames"
    frame_bytes_max: int = 4 * 1024 * 1024
    stream_credit_bytes: int = 262_144
    """Bytes that a stream's sender may be ahead of its reader."""
    keepalive_s: float = 15
    connection_age_max_s: float = 3600
    inflight_per_connection_max: int = 4096
    default: MeshRules = field(default_factory=MeshRules)
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))

    def rules(self, contract: str, method: str, **declared: Any) -> MeshRules:
        """The rules of ``contract.method``: its own beat the contract's, which beat ``[mesh]``.

        ``declared`` is what the code says (``@timeout``): stronger than ``[mesh]``, weaker than a table that
        names the contract or the method.
        """
        changes = {
            **declared,
            **self.contracts.get(contract, {}),
            **self.methods.get(f"{contract}.{method}", {}),
        }
        return replace(self.default, **changes) if changes else self.default
