"""The observer process: what the application tells is taken in here, and the portal is served from here.

``python -m seamline.portal.process <options as JSON>``; the supervisor starts it. It ends with the supervisor, and the
application does not notice when it ends before.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

import msgspec

from seamline.gateway.asgi import AsgiApp, AsgiExchange, make_scope
from seamline.gateway.compression import accepts_gzip
from seamline.kernel.children import die_with_parent
from seamline.kernel.clock import SystemClock
from seamline.kernel.lifetime import Runners, spare_the_collector
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log
from seamline.kernel.wire.http1 import Exchange, Header, HttpLimits, HttpServer
from seamline.observe.observatory import Observatory
from seamline.portal.app import Portal, make_app
from seamline.run.admin import AdminClient
from seamline.run.observing import ObserverOptions
from seamline.run.roles import Caller

_NICE: Final = 5
"""The application comes first."""
_LIMITS: Final = HttpLimits(body_bytes_max=1024 * 1024, connections_max=512)
_GZIP_BYTES_MIN: Final = 1024
_STOP_S: Final = 2.0


class SupervisorAdmin:
    """The supervisor, asked in the name of who has signed in."""

    def __init__(self, data: Path) -> None:
        self._client = AdminClient(data)

    async def ask(
        self, op: str, say: Callable[[str], None] | None = None, *, as_: Caller | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """See :class:`seamline.portal.app.Admin`."""
        if as_ is not None:
            arguments["as"] = {"name": as_.name, "role": as_.role, "peer": as_.peer}
        return await self._client.ask(op, say, **arguments)


class PortalServer:
    """Serves an ASGI app on a Unix socket, to which only the supervisor speaks."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._runners = Runners()
        self._http = HttpServer(self._handle, _LIMITS, runners=self._runners)
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.get_running_loop().create_unix_server(self._http.protocol, sock=listener)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._http.close()
        await self._runners.stop()

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        path = unquote(request.path.decode("latin-1"))
        scope = make_scope(exchange, "http", "http", path, "", request.headers)
        gzip = request.method != "HEAD" and accepts_gzip(request.header(b"accept-encoding"))
        run = AsgiExchange(exchange, asyncio.get_running_loop(), _as_it_is, _GZIP_BYTES_MIN if gzip else None)
        await run.run(self._app, scope)


def _as_it_is(_: int, headers: list[Header]) -> list[Header]:
    return headers


async def _run(options: ObserverOptions, settings: Settings) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    clock = SystemClock()
    data = Path(options.data)
    observatory = Observatory(settings, data, clock, address=options.address)
    await observatory.start(socket.socket(fileno=options.intake))
    portal = Portal(observatory.reader, observatory, SupervisorAdmin(data), settings, clock)
    server = PortalServer(cast("AsgiApp", make_app(portal)))
    await server.start(socket.socket(fileno=options.portal))
    spare_the_collector()
    await stopping.wait()
    await server.stop()
    async with asyncio.timeout(_STOP_S):
        await observatory.stop()


def main(arguments: list[str]) -> int:
    """Run the observer that ``arguments`` describe; its exit status."""
    options = msgspec.json.decode(arguments[0], type=ObserverOptions)
    if not die_with_parent(options.supervisor_pid):
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the supervisor
    os.nice(_NICE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    log.configure(options.log_level)
    settings = Settings.load(Path(options.folder))
    settings = replace(settings, app=replace(settings.app, data=options.data))
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    if sys.platform != "win32":
        import uvloop

        run = uvloop.run
    run(_run(options, settings))
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
