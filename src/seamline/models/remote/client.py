"""Requests to an engine: kept-alive connections, patience that ends, refusals understood."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import cache
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal import log
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool, HttpResponse
from seamline.kernel.wire.http1_message import Header, header_lines
from seamline.models.errors import EngineMalformed, EngineRefused, EngineStalled, EngineUnreachable, ModelError
from seamline.models.remote.refusals import refusal
from seamline.module.context import NO_DEADLINE, current

_log = log.get("seamline.models")

_JSON: Final = (b"content-type", b"application/json")
_ENDING_S: Final = 0.25
"""For the end of a body of which all that matters has come, so that its connection serves again."""
_REFUSAL_BYTES_MAX: Final = 256 * 1024
_TARGETS_MAX: Final = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, in seconds. A deadline of the call at work that ends sooner holds instead.

    Args:
        connect_s: for a connection.
        first_s: from the request to the first piece of a streamed answer.
        stall_s: from one piece to the next.
        answer_s: for an answer that comes as a whole.
    """

    connect_s: float = 2.0
    first_s: float = 30.0
    stall_s: float = 15.0
    answer_s: float = 300.0


class RawAnswer:
    """An answer as it comes. Close it (or leave it as a context) to stop the engine."""

    __slots__ = ("_engine", "_limit_at", "_loop", "_patience", "_response", "_since", "_timer", "headers", "status")

    def __init__(
        self,
        engine: str,
        response: HttpResponse,
        patience: Patience,
        first_at: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.status = response.status
        self.headers: list[Header] = response.headers
        self._engine = engine
        self._response = response
        self._patience = patience
        self._loop = loop
        self._limit_at = first_at
        """Until when the first piece has to come; None once it is here."""
        self._since = 0.0
        """Since when somebody waits for bytes; 0 while nobody does."""
        self._timer: asyncio.TimerHandle | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that lower-case name."""
        return self._response.header(name)

    @property
    def complete(self) -> bool:
        """All of it has come."""
        return self._response.complete

    def here(self, bytes_max: int) -> bytes | None:
        """The rest if all of it has come, and None otherwise. Raises EngineMalformed as :meth:`read_all` does."""
        body = self._response.here()
        if body is not None and len(body) > bytes_max:
            raise self._too_large(bytes_max)
        return body

    @property
    def chunks(self) -> AsyncIterator[bytes]:
        return self._iterate()

    def began(self) -> None:
        """The first piece that counts is here: from now on it may pause, but not for long."""
        if self._limit_at is not None:
            self._limit_at = None
            if self._timer is not None:
                self._timer.cancel()  # the next wait sets one that looks sooner
                self._timer = None

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the end. Raises EngineUnreachable, EngineStalled."""
        if not self._response.complete:
            self._since = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_at(self._due(), self._look)
        try:
            return await self._response.read()
        except HttpClientError as error:
            raise EngineUnreachable(
                f"{self._engine} broke off in the middle of an answer: {error}", "It may be asked again."
            ) from error
        except TimeoutError:
            raise self._stalled("within the deadline") from None
        finally:
            self._since = 0.0

    async def read_all(self, bytes_max: int) -> bytes:
        """The rest. Raises EngineMalformed when it is larger than ``bytes_max``."""
        parts: list[bytes] = []
        size = 0
        over = False
        while not over:
            over = self._response.complete
            chunk = await self.read()
            size += len(chunk)
            if size > bytes_max:
                await self.aclose()
                raise self._too_large(bytes_max)
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def finish(self) -> None:
        """All that matters was read: let the connection serve again if the rest comes at once."""
        if not self._response.complete:
            try:
                async with asyncio.timeout(_ENDING_S):
                    while await self._response.read():
                        pass
            except (OSError, EngineStalled):
                pass
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of it; if it was not over, the connection is closed at once, and the engine told by that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _iterate(self) -> AsyncIterator[bytes]:
        async with self:
            while chunk := await self.read():
                self.began()
                yield chunk

    # One timer for the whole answer: it looks when something could be due, and mostly finds that nothing is.

    def _due(self) -> float:
        """When the wait under way has been too long."""
        waiting = (self._since or self._loop.time()) + self._patience.stall_s
        return waiting if self._limit_at is None else self._limit_at

    def _look(self) -> None:
        self._timer = None
        if self._response.complete:
            return
        due, now = self._due(), self._loop.time()
        if due > now or not self._since:
            self._timer = self._loop.call_at(due if due > now else now + self._patience.stall_s, self._look)
            return
        within = f"for {self._patience.stall_s:g} s" if self._limit_at is None else "to begin with"
        self._response.fail(self._stalled(within))

    def _too_large(self, bytes_max: int) -> EngineMalformed:
        return EngineMalformed(f"the answer of {self._engine} is larger than {bytes_max} bytes", "Ask for less.")

    def _stalled(self, within: str) -> EngineStalled:
        return EngineStalled(f"nothing came from {self._engine} {within}", "It may hang; ask another, or later.")


class EngineClient:
    """Connections to one engine.

    Args:
        url: ``http:`` or ``https:``, with the path that goes before that of each request.
        headers: of each request, such as its key.
        tls: instead of the machine's trust.
    """

    def __init__(
        self,
        url: str,
        headers: Iterable[Header] = (),
        *,
        patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
        connections_max: int = 1024,
        answer_bytes_max: int = 32 * 1024 * 1024,
        clock: Clock | None = None,
    ) -> None:
        parts = urlsplit(url)
        host, secure = parts.hostname, parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise ModelError(
                f"{url!r} is no address of an engine", "Write https://host/path, or http:// inside a network."
            )
        if "@" in parts.netloc:
            raise ModelError(f"the address of the engine at {host!r} holds a credential", "Give the key as a secret.")
        self.name = parts.netloc
        self.patience = patience or Patience()
        self.answer_bytes_max = answer_bytes_max
        self._base = parts.path.rstrip("/").encode("ascii")
        self._headers = [_JSON, *headers]
        self._lines = header_lines(self._headers)
        self._targets: dict[str, bytes] = {}
        self._clock = clock or SystemClock()
        self._pool = HttpPool(
            host,
            parts.port or (443 if secure else 80),
            (tls or _trust()) if secure else None,
            connections_max=connections_max,
            connect_timeout_s=self.patience.connect_s,
            host_header=parts.netloc,
        )
        if len(self._headers) > 1 and not secure and not loopback(host):
            _log.warning("the key for %s travels without TLS", self.name)

    async def raw(
        self,
        path: str,
        body: bytes = b"",
        headers: Iterable[Header] = (),
        *,
        method: str = "POST",
        streams: bool = True,
        timed: bool = True,
    ) -> RawAnswer:
        """One request; an answer of any status. Raises EngineUnreachable, EngineStalled.

        Args:
            streams: the answer comes in pieces, so that ``first_s`` and ``stall_s`` hold, and not ``answer_s``.
            timed: whether to give up when no answer begins; otherwise the caller does.
        """
        patience = self.patience
        wait_s = patience.first_s if streams else patience.answer_s
        loop = asyncio.get_running_loop()
        call = current()
        deadline = NO_DEADLINE if call is None else call.deadline
        limit_at = min(loop.time() + wait_s, deadline)
        target = self._targets.get(path)
        if target is None:
            target = self._base + path.encode("ascii")
            if len(self._targets) < _TARGETS_MAX:
                self._targets[path] = target
        lines = self._lines + header_lines(headers) if headers else self._lines
        try:
            if timed:
                async with asyncio.timeout_at(limit_at):
                    response = await self._pool.request(method, target, lines, body, replayable=True)
            else:
                response = await self._pool.request(method, target, lines, body, replayable=True)
        except HttpClientError as error:
            raise EngineUnreachable(f"{self.name} cannot be reached: {error}", "Is it up?") from error
        except TimeoutError:
            raise EngineStalled(
                f"{self.name} did not answer within {wait_s:g} s or the deadline", "It may hang; ask another, or later."
            ) from None
        if deadline != NO_DEADLINE:
            response.until(deadline)
        return RawAnswer(self.name, response, patience, limit_at, loop)

    async def open(
        self,
        path: str,
        body: bytes = b"",
        headers: Iterable[Header] = (),
        *,
        method: str = "POST",
        streams: bool = True,
    ) -> RawAnswer:
        """The same, but only an answer that is none of an error. Raises EngineRefused as well."""
        answer = await self.raw(path, body, headers, method=method, streams=streams)
        if 200 <= answer.status < 300:
            return answer
        raise await self.refused(answer)

    async def ask(self, path: str, body: bytes = b"", headers: Iterable[Header] = (), *, method: str = "POST") -> bytes:
        """The whole body of an answer that is none of an error. Raises EngineMalformed as well when it is too large."""
        async with await self.open(path, body, headers, method=method, streams=False) as answer:
            return await answer.read_all(self.answer_bytes_max)

    async def refused(self, answer: RawAnswer) -> EngineRefused:
        """What an answer with another status says; it is read and let go of."""
        try:
            async with answer, asyncio.timeout(self.patience.stall_s):
                body = await answer.read_all(_REFUSAL_BYTES_MAX)
        except (EngineMalformed, EngineUnreachable, EngineStalled, TimeoutError):
            body = b""
        return refusal(self.name, answer.status, answer.headers, body, self._clock.now())

    async def close(self) -> None:
        """Requests under way fail."""
        await self._pool.close()


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def cut_short(name: str) -> EngineUnreachable:
    """An answer ended before it said that it did."""
    return EngineUnreachable(f"{name} ended in the middle of an answer", "It may be asked again.")
