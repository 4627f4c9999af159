"""One connection to the server.

It does not heal by itself: nats-py would send later messages of a batch after a reconnection whose earlier ones were
lost. It is made anew, and what was not acknowledged is published again from there.
"""

# nats-py says only in part what its functions take.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js import errors as js_errors

from seamline.events.brokers import urls
from seamline.events.errors import BrokerError, BrokerUrlError
from seamline.kernel.signal import log

_log = log.get(__name__)

TIMEOUT_S: Final = 5


class NatsLink:
    """One connection to the server, made anew when it is lost."""

    def __init__(self, url: str, app: str) -> None:
        parts = urls.split(url)
        self.shown = urls.shown(url)
        self.server = url.partition("?")[0]
        self.replicas = _replicas(parts.query)
        self._app = app
        self._client: Client | None = None
        self._making = asyncio.Lock()
        self._refusal = ""
        self.watchers: set[asyncio.Event] = set()
        """Set when the connection is lost."""

    @asynccontextmanager
    async def reachable(self) -> AsyncGenerator[None]:
        """Name the server when it does not answer, or refuses."""
        try:
            yield
        except (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError) as error:
            raise self._refused(str(error)) from error
        except (js_errors.ServiceUnavailableError, nats.errors.NoRespondersError) as error:
            raise BrokerError(
                f"NATS at {self.shown} has no JetStream for us now ({error})",
                "Start nats-server with -js (or a jetstream block); after a start or in an election it is tried again.",
            ) from error
        except js_errors.APIError as error:
            raise BrokerError(
                f"NATS at {self.shown} refuses: {error.description} ({error.err_code})",
                "Give the account streams and room on disk, as it says.",
            ) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            for said in (str(error), self._refusal):
                if "authorization" in said.lower():
                    raise self._refused(said) from error
            raise BrokerError(
                f"NATS at {self.shown} does not answer ({self._refusal or error or type(error).__name__})",
                "Check [events] broker and that the server is running; it is tried again by itself.",
            ) from error

    def _refused(self, said: str) -> BrokerError:
        return BrokerError(
            f"NATS at {self.shown} refuses us: {said}", "Check user, password or token in [events] broker."
        )

    async def client(self) -> Client:
        """The connection; called inside of :meth:`reachable`."""
        found = self._client
        if found is not None and found.is_connected:
            return found
        async with self._making:
            if self._client is None or not self._client.is_connected:
                await self._forget()
                self._refusal = ""
                self._client = await self._connected()
            return self._client

    async def _connected(self) -> Client:
        client = Client()
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                await client.connect(
                    self.server,
                    name=f"seamline {self._app}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # of each server, for the first connection
                    reconnect_time_wait=0,
                    connect_timeout=TIMEOUT_S,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._noted,
                )
        except BaseException:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            raise
        inside: Any = client
        inside._reading_task.add_done_callback(partial(self._read_out, inside))  # noqa: SLF001
        return client

    async def stream(self) -> JetStreamContext:
        return (await self.client()).jetstream(timeout=TIMEOUT_S)

    async def _noted(self, error: Exception) -> None:
        self._refusal = str(error)
        _log.debug("NATS at %s: %s", self.shown, error)

    def _read_out(self, client: Any, reading: asyncio.Task[None]) -> None:
        """The connection has ended. nats-py lets requests run into their timeouts then, and where the connection was
        reset it does not even call back."""
        if not reading.cancelled() and (error := reading.exception()) is not None:
            _log.debug("NATS at %s: %s", self.shown, error)
        for answer in list(client._resp_map.values()):  # noqa: SLF001
            if not answer.done():
                answer.set_exception(nats.errors.ConnectionClosedError())
        for watcher in self.watchers:
            watcher.set()

    async def _forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()

    async def close(self) -> None:
        await self._forget()


def _replicas(query: str) -> int:
    found = re.fullmatch(r"(?:replicas=([1-5]))?", query)
    if found is None:
        raise BrokerUrlError(f"the url ends in {query!r}", 'Only "?replicas=3" (1 to 5) may stand there')
    return int(found[1] or 1)
