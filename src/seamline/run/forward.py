"""Hands a request of somebody who was let in to the portal, which another process serves, and its answer back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from seamline.kernel.wire.http1 import Exchange, Header, HttpRefusal
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool, HttpResponse
from seamline.run.roles import Caller
from seamline.run.sockets import unix_address

CALLER_HEADER: Final = b"x-seamline-caller"
ROLE_HEADER: Final = b"x-seamline-role"
_CONNECTIONS_MAX: Final = 256
_KEPT_BACK: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"content-length", b"host", b"cookie", b"authorization", CALLER_HEADER, ROLE_HEADER,
    }
)  # fmt: skip
"""Of the connection and not of the request, or ours alone to say."""
_OF_THE_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date"})


class Forwarder:
    """Speaks HTTP/1.1 to the Unix socket at ``path``.

    Args:
        path: of the socket; its folder exists when the first request comes.
        secure: headers that every answer has; the portal's own words go before.
    """

    def __init__(self, path: Path, secure: tuple[Header, ...]) -> None:
        self._path = path
        self._secure = secure
        self._stack = ExitStack()
        self._pool: HttpPool | None = None

    async def forward(self, exchange: Exchange, caller: Caller | None) -> None:
        """``caller`` is None where nobody has signed in. Raises HttpRefusal where nobody answers."""
        request = exchange.request
        headers = [(name, value) for name, value in request.headers if name not in _KEPT_BACK]
        if caller is not None:
            headers += [(CALLER_HEADER, caller.name.encode()), (ROLE_HEADER, caller.role.encode())]
        body = await request.read_all()
        again = request.method in {"GET", "HEAD"}
        try:
            answer = await self._open().request(request.method, request.target, headers, body, replayable=again)
        except HttpClientError as error:
            raise HttpRefusal(
                503, "portal_away", "The portal is not there yet, or is started again.", [(b"retry-after", b"1")]
            ) from error
        async with answer:
            await self._hand_back(exchange, answer)

    async def _hand_back(self, exchange: Exchange, answer: HttpResponse) -> None:
        headers = [(name, value) for name, value in answer.headers if name not in _OF_THE_CONNECTION]
        said = {name for name, _ in headers}
        exchange.start(answer.status, [*headers, *(each for each in self._secure if each[0] not in said)])
        try:
            while chunk := await answer.read():
                await exchange.write(chunk)
        except HttpClientError:
            exchange.transport.abort()  # half an answer must not look like a whole one
            return
        exchange.end()

    def _open(self) -> HttpPool:
        if self._pool is None:
            address = self._stack.enter_context(unix_address(self._path))
            self._pool = HttpPool(
                "portal", 0, connections_max=_CONNECTIONS_MAX, host_header="portal", path=Path(os.fspath(address))
            )
        return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        self._stack.close()
