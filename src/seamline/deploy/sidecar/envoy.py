"""Envoy's configuration: a bootstrap that stays, and files for what changes.

    envoy.json        listeners, routes, filters: made of the contracts, which do not change while the process lives
    svid.json         the module's key and certificate chain (SDS)
    roots.json        the trust bundle (SDS)
    <module>.json     where a module can be called (EDS)

Source: Envoy's v3 API reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seamline.kernel.settings import MeshRules
from seamline.kernel.wire.frames import ErrorBody
from seamline.mesh.connect import error_json
from seamline.module.contract import BIDI, CLIENT_STREAM, UNARY, MethodSpec

_TYPES = "type.googleapis.com/envoy"
_TLS = f"{_TYPES}.extensions.transport_sockets.tls.v3"
_HTTP = f"{_TYPES}.extensions.filters.http"
CHECK_S = 2
"""How long the check may take; without an answer nothing passes."""
_CONNECTIONS_MAX = 4096
_REQUESTS_MAX = 4096
_SERVICE, _STREAMS = "the service", "streams to the service"
"""Clusters; no module has such a name."""
_HEADERS_KB_MAX = 96
_SERVICE_IDLE_S = 4
"""Shorter than what servers in other languages keep an idle connection (node: 5 s)."""
_MESH_IDLE_S = 60

CALLER, USER, ROLES, SUBJECT = "seamline-caller", "seamline-user", "seamline-roles", "seamline-subject"
TIMEOUT = "x-envoy-upstream-rq-timeout-ms"
INWARD, OUTWARD = "/in", "/out"
"""What stands before the path of a call when the check is asked about it."""

GONE = ErrorBody("unavailable", "the service behind the sidecar does not answer", "SL3005", retry=True)
BROKEN = ErrorBody("unavailable", "the service behind the sidecar broke the connection off", "SL3005")

_ASKED_WITH = (
    "x-forwarded-client-cert", "content-type", "connect-timeout-ms", "traceparent", "idempotency-key", SUBJECT,
    "seamline-priority",
)  # fmt: skip
_TOLD = (CALLER, USER, ROLES, SUBJECT, TIMEOUT, "connect-timeout-ms", "traceparent", "seamline-priority")


@dataclass(frozen=True)
class Called:
    """A method that passes the sidecar: where it goes and by which rules."""

    spec: MethodSpec
    callee: str
    rules: MeshRules


@dataclass(frozen=True)
class Plan:
    """What a sidecar's Envoy is made of.

    ``folder`` holds everything; ``service`` is where the service listens, a port of the loopback or a Unix socket.
    """

    folder: Path
    app: str
    module: str
    trust_domain: str
    port: int
    service: int | Path
    body_bytes_max: int
    inward: tuple[Called, ...]
    outward: tuple[Called, ...]

    @property
    def check(self) -> Path:
        return self.folder / "check.sock"

    @property
    def streams(self) -> Path:
        """Where streams to the service go through, to be ended when they may go on no longer."""
        return self.folder / "streams.sock"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def mesh(self) -> Path:
        """Where the service reaches the other modules."""
        return self.folder / "mesh.sock"

    @property
    def callees(self) -> list[str]:
        return sorted({each.callee for each in self.outward})


def replace_json(path: Path, content: Mapping[str, Any]) -> None:
    """Put a file in its place whole, as Envoy's watch wants it; nobody else may read it."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(content))
    new.replace(path)


def write_bootstrap(plan: Plan) -> Path:
    path = plan.folder / "envoy.json"
    replace_json(path, bootstrap(plan))
    return path


def write_svid(plan: Plan, key: bytes, chain: bytes) -> None:
    secret = {
        "@type": f"{_TLS}.Secret",
        "name": "svid",
        "tls_certificate": {"certificate_chain": _inline(chain), "private_key": _inline(key)},
    }
    replace_json(plan.folder / "svid.json", {"resources": [secret]})


def write_nothing(plan: Plan, name: str) -> None:
    """A file to watch until there is something in it."""
    replace_json(plan.folder / f"{name}.json", {"resources": []})


def write_roots(plan: Plan, bundle: bytes) -> None:
    secret = {"@type": f"{_TLS}.Secret", "name": "roots", "validation_context": {"trusted_ca": _inline(bundle)}}
    replace_json(plan.folder / "roots.json", {"resources": [secret]})


def write_endpoints(plan: Plan, callee: str, addresses: Iterable[tuple[str, int]]) -> None:
    found = [{"endpoint": {"address": _address(host, port)}} for host, port in addresses]
    assignment = {
        "@type": f"{_TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": callee,
        "endpoints": [{"lb_endpoints": found}],
    }
    replace_json(plan.folder / f"{callee}.json", {"resources": [assignment]})


def bootstrap(plan: Plan) -> dict[str, Any]:
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": _CONNECTIONS_MAX,
        },
    }
    return {
        "node": {"id": plan.module, "cluster": plan.app},
        "admin": {"address": _pipe(plan.admin)},
        "overload_manager": {"resource_monitors": [connections]},
        "static_resources": {
            "listeners": [_inward(plan), _outward(plan)],
            "clusters": [_check(plan), _service(plan), _streams(plan), *(_callee(plan, name) for name in plan.callees)],
        },
    }


# Listeners.


def _inward(plan: Plan) -> dict[str, Any]:
    """What others ask of the module: over mutual TLS, from peers of our own application."""
    peers = {"prefix": f"spiffe://{plan.trust_domain}/{plan.app}/"}
    tls = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        # A resumed session is not verified again, so it would outlive the certificate it began with.
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": _tls(plan, peers),
    }
    manager = {
        **_manager(plan, "inward", INWARD),
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "route_config": _routes(
            [
                {**_DIRECT_HEALTH, "match": {"path": "/healthz"}, "typed_per_filter_config": _unasked()},
                *(_route(plan, each, _SERVICE if each.spec.kind == UNARY else _STREAMS, {}) for each in plan.inward),
                {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
            ]
        ),
    }
    return {
        "name": "inward",
        "address": _address("127.0.0.1", plan.port),
        "per_connection_buffer_limit_bytes": plan.body_bytes_max,
        "filter_chains": [
            {
                "filters": [{"name": "http", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "transport_socket_connect_timeout": "10s",
            }
        ],
    }


def _outward(plan: Plan) -> dict[str, Any]:
    """What the service asks of others: plain, on a socket in a folder that only this user can enter."""
    manager = {
        **_manager(plan, "outward", OUTWARD),
        "route_config": _routes(
            [
                *(_route(plan, each, each.callee, _retries(each)) for each in plan.outward),
                {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
            ]
        ),
    }
    return {
        "name": "outward",
        "address": {"pipe": {"path": str(plan.mesh), "mode": 0o600}},
        "per_connection_buffer_limit_bytes": plan.body_bytes_max,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


_DIRECT_HEALTH: dict[str, Any] = {
    "direct_response": {"status": 200, "body": {"inline_string": '{"ready":true}'}},
}


def _manager(plan: Plan, name: str, prefix: str) -> dict[str, Any]:
    forged = [CALLER, USER, ROLES, TIMEOUT]
    return {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": False,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": _HEADERS_KB_MAX,
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "0s",
        "drain_timeout": "1s",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        # What only the check may say is taken out before it is asked.
        "early_header_mutation_extensions": [
            {
                "name": "forged",
                "typed_config": {
                    "@type": f"{_TYPES}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [{"remove": header} for header in forged],
                },
            }
        ],
        "local_reply_config": {"mappers": _local_replies()},
        "http_filters": [
            {"name": "check", "typed_config": _asks(plan, prefix)},
            {"name": "router", "typed_config": {"@type": f"{_HTTP}.router.v3.Router", "suppress_envoy_headers": True}},
        ],
    }


def _asks(plan: Plan, prefix: str) -> dict[str, Any]:
    return {
        "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "with_request_body": {"max_request_bytes": plan.body_bytes_max, "allow_partial_message": False},
        "allowed_headers": {"patterns": [{"exact": name} for name in _ASKED_WITH]},
        "http_service": {
            "server_uri": {"uri": "http://check", "cluster": "check", "timeout": f"{CHECK_S}s"},
            "path_prefix": prefix,
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": name} for name in _TOLD]}},
        },
    }


def _unasked() -> dict[str, Any]:
    return {"check": {"@type": f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}}


def _unread() -> dict[str, Any]:
    """Policy does not wait for the end of a stream that goes up."""
    settings = {"disable_request_body_buffering": True}
    return {"check": {"@type": f"{_HTTP}.ext_authz.v3.ExtAuthzPerRoute", "check_settings": settings}}


def _routes(routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}


def _route(plan: Plan, called: Called, cluster: str, retries: dict[str, Any]) -> dict[str, Any]:
    spec = called.spec
    timeout_s = called.rules.timeout_s if spec.kind == UNARY else 0
    route: dict[str, Any] = {
        "match": {"path": f"/{plan.app}.{spec.contract}/{spec.name}"},
        "route": {"cluster": cluster, "timeout": f"{timeout_s:g}s", **retries},
    }
    if spec.kind in (CLIENT_STREAM, BIDI):
        route["typed_per_filter_config"] = _unread()
    return route


def _retries(called: Called) -> dict[str, Any]:
    """A method that may run twice is asked again when the answer was lost; another only when it was never sent."""
    if not called.rules.retries or called.spec.kind != UNARY:
        return {}
    lost = "connect-failure,refused-stream,reset,gateway-error" if called.spec.idempotent else "connect-failure"
    backoff_s = max(called.rules.retry_backoff_ms, 1) / 1000
    return {
        "retry_policy": {
            "retry_on": lost,
            "num_retries": called.rules.retries,
            "retry_back_off": {"base_interval": f"{backoff_s:g}s"},
        }
    }


def _local_replies() -> list[dict[str, Any]]:
    """What Envoy says of itself, in the words of the JSON wire."""
    late = ErrorBody("deadline_exceeded", "the service behind the sidecar did not answer in time", "SL3004")
    flags = {("UF", "UH", "UO"): GONE, ("UC", "LR", "UR"): BROKEN, ("UT",): late}
    return [
        {
            "filter": {"response_flag_filter": {"flags": list(names)}},
            "body_format_override": {"json_format": error_json(body)},
        }
        for names, body in flags.items()
    ]


# Clusters.


def _check(plan: Plan) -> dict[str, Any]:
    return {
        "name": "check",
        "connect_timeout": "1s",
        "load_assignment": _static("check", _pipe(plan.check)),
        **_limits(),
    }


def _service(plan: Plan) -> dict[str, Any]:
    address = _address("127.0.0.1", plan.service) if isinstance(plan.service, int) else _pipe(plan.service)
    return {
        "name": _SERVICE,
        "connect_timeout": "1s",
        "load_assignment": _static(_SERVICE, address),
        "typed_extension_protocol_options": _idle(_SERVICE_IDLE_S),
        **_limits(),
    }


def _streams(plan: Plan) -> dict[str, Any]:
    return {
        "name": _STREAMS,
        "connect_timeout": "1s",
        "load_assignment": _static(_STREAMS, _pipe(plan.streams)),
        "typed_extension_protocol_options": _idle(_SERVICE_IDLE_S),
        **_limits(),
    }


def _callee(plan: Plan, name: str) -> dict[str, Any]:
    tls = {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": f"{name}.{plan.app}.seamline",
        "common_tls_context": _tls(plan, {"exact": f"spiffe://{plan.trust_domain}/{plan.app}/{name}"}),
    }
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(plan.folder / f"{name}.json")}}
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": source},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": _idle(_MESH_IDLE_S),
        **_limits(),
    }


def _limits() -> dict[str, Any]:
    most = {"max_connections": _CONNECTIONS_MAX, "max_pending_requests": _REQUESTS_MAX, "max_requests": _REQUESTS_MAX}
    return {"circuit_breakers": {"thresholds": [{**most, "max_retries": 16}]}}


def _idle(seconds: float) -> dict[str, Any]:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        name: {
            "@type": f"type.googleapis.com/{name}",
            "common_http_protocol_options": {"idle_timeout": f"{seconds:g}s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }


def _tls(plan: Plan, uri: Mapping[str, str]) -> dict[str, Any]:
    """Our certificate and whom to accept, both followed in their files."""

    def secret(name: str) -> dict[str, Any]:
        source = {"path": str(plan.folder / f"{name}.json")}
        return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": source}}

    names = [{"san_type": "URI", "matcher": dict(uri)}]
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["http/1.1"],
        "tls_certificate_sds_secret_configs": [secret("svid")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": secret("roots"),
        },
    }


def _static(name: str, address: dict[str, Any]) -> dict[str, Any]:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path)}}


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_string": pem.decode()}
