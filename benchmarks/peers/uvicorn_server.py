"""uvicorn as its documentation advises: uvloop, httptools, no access log, client certificates required."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.driver import say
from benchmarks.sockets import listen


async def serve(app: Any, certificates: Path | None, *, name: str = "server", port: int = 0) -> None:
    """Serve until told to stop; without ``certificates`` in the clear, for an app that stands behind a sidecar."""
    tls: dict[str, Any] = {}
    if certificates is not None:
        tls = {
            "ssl_certfile": certificates / f"{name}.pem",
            "ssl_keyfile": certificates / f"{name}.key",
            "ssl_ca_certs": str(certificates / "ca.pem"),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    configuration = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        timeout_keep_alive=75,
        **tls,
    )
    listening = listen(port)
    say({"ready": True, "port": listening.getsockname()[1]})
    await uvicorn.Server(configuration).serve(sockets=[listening])
